//! Uploads by the coordinator beside synchronous ones: what a call costs its caller, and how long a run of uploads takes in all.
//!
//! Each upload fills 1 MiB of private memory on the CPU device, through staging memory and a copy.
#![allow(clippy::unit_arg, reason = "a closure of one expression is the plainest")]
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::{Buffer, Device, Storage};
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_metal_layer::{MetalLayer, Ticket, Transfer};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const BYTES: u64 = 1 << 20;
const UPLOADS: usize = 16;

fn upload(transfer: &dyn Transfer, to: &Buffer) -> Ticket {
    transfer.upload(to, Box::new(|bytes| Ok(bytes.fill(7)))).unwrap()
}

fn uploads(c: &mut Criterion) {
    let device: Arc<dyn Device> = CpuDevice::new(&CpuOptions::default()).unwrap();
    for (name, optimizations) in [("synchronous", "none"), ("coordinator", "blit_queue")] {
        let mut config = MetalOptimizations::default();
        config.select(optimizations).unwrap();
        config.blit_queue.max_pending_ops = 100;
        let transfer = MetalLayer::new(device.clone(), &config).unwrap().transfer;
        let to = device.new_buffer(BYTES * UPLOADS as u64, Storage::Private).unwrap();
        let parts: Vec<Buffer> = (0..UPLOADS as u64).map(|i| to.slice(i * BYTES..(i + 1) * BYTES).unwrap()).collect();
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(BYTES));
        group.bench_function("call", |b| {
            b.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        let began = Instant::now();
                        let ticket = upload(transfer.as_ref(), &parts[0]);
                        let called = began.elapsed();
                        ticket.wait(LIMIT).unwrap();
                        called
                    })
                    .sum()
            });
        });
        group.throughput(Throughput::Bytes(BYTES * UPLOADS as u64));
        group.bench_function("run", |b| {
            b.iter(|| {
                let tickets: Vec<Ticket> = parts.iter().map(|to| upload(transfer.as_ref(), to)).collect();
                tickets.iter().for_each(|t| t.wait(LIMIT).unwrap());
            });
        });
        group.finish();
    }
}

criterion_group!(benches, uploads);
criterion_main!(benches);
