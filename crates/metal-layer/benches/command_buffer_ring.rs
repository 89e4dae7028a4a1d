//! A step's cost to the host, and the time from one step to the next: the ring beside one slot at a time.
//!
//! Each step copies 4 MiB on the CPU device; the host does as much work again before it submits, as if it encoded a model.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Buffer, Device, Op, Storage};
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_metal_layer::{InFlight, MetalLayer};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const STEPS: usize = 32;
const BYTES: u64 = 4 << 20;

struct Load {
    layer: MetalLayer,
    from: Buffer,
    to: Buffer,
    host: (Vec<u8>, Vec<u8>),
}

impl Load {
    fn new(device: &Arc<dyn Device>, optimizations: &str) -> Self {
        let mut config = MetalOptimizations::default();
        config.select(optimizations).unwrap();
        let mut layer = MetalLayer::new(device.clone(), &config).unwrap();
        layer.submit.reserve_inputs(4096).unwrap();
        let buffer = || device.new_buffer(BYTES, Storage::Shared).unwrap();
        let (from, to) = (buffer(), buffer());
        Self { layer, from, to, host: (vec![1; BYTES as usize], vec![0; BYTES as usize]) }
    }

    fn submit(&mut self, host_works: bool) -> InFlight {
        let mut slot = self.layer.submit.acquire().unwrap();
        slot.encoder.record(Op::Copy(Copy { from: self.from.clone(), to: self.to.clone() })).unwrap();
        if host_works {
            self.host.1.copy_from_slice(black_box(&self.host.0));
        }
        self.layer.submit.submit(slot, &[]).unwrap()
    }

    /// Runs the steps, as many ahead as the submitter allows.
    fn run(&mut self, host_works: bool) {
        let mut flight = VecDeque::new();
        for _ in 0..STEPS {
            while flight.len() >= self.layer.submit.depth() {
                let oldest: InFlight = flight.pop_front().unwrap();
                self.layer.submit.complete(&oldest, LIMIT).unwrap();
            }
            let step = self.submit(host_works);
            flight.push_back(step);
        }
        flight.iter().for_each(|step| self.layer.submit.complete(step, LIMIT).unwrap());
    }
}

fn steps(c: &mut Criterion) {
    let device: Arc<dyn Device> = CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
    for (name, host_works) in [("steps that the device bounds", false), ("steps that host and device share", true)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(STEPS as u64));
        for (arm, optimizations) in [("one slot", "none"), ("ring of 3", "command_buffer_ring")] {
            let mut load = Load::new(&device, optimizations);
            group.bench_function(arm, |b| b.iter(|| load.run(host_works)));
        }
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
