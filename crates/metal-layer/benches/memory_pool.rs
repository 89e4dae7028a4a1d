//! Allocation and its release: by the pool, by the caching allocator, and straight from the device. The sizes are those of
//! a decode step: rope frequencies, prompt tokens, activations, logits.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::{Device, Storage};
use mlx_serving_metal_layer::config::MemoryPoolConfig;
use mlx_serving_metal_layer::{Allocate, CachingAllocator, MemoryPool, Wiring};
use std::sync::Arc;

const SIZES: [u64; 8] = [256, 2048, 7000, 16 << 10, 60_000, 300_000, 1 << 20, 5 << 20];

fn allocators() -> Vec<(&'static str, Box<dyn Allocate>)> {
    let device: Arc<dyn Device> =
        CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).expect("the CPU is a device");
    let config = MemoryPoolConfig { heap_size_mb: 64, warmup_buffer_sizes_mb: vec![32], ..MemoryPoolConfig::default() };
    // Each has a wiring of its own, so that none waits for another's submissions.
    let wiring = || Wiring::new(device.clone());
    let pool = MemoryPool::new(&wiring(), &config).expect("256 MiB");
    vec![
        ("pool", Box::new(pool)),
        ("caching", Box::new(CachingAllocator::new(&wiring()))),
        ("direct", Box::new(CachingAllocator::direct(&wiring()))),
    ]
}

/// Measures one allocation at a time.
fn single(c: &mut Criterion) {
    let mut group = c.benchmark_group("allocate and release");
    for (name, allocator) in allocators() {
        for size in [256, 60_000, 5 << 20] {
            group.bench_with_input(BenchmarkId::new(name, size), &size, |b, &size| {
                b.iter(|| allocator.allocate(size, Storage::Shared, "bench").expect("memory"));
            });
        }
    }
    group.finish();
}

/// A mix of sizes held at once and released in another order than they were taken.
fn mix(c: &mut Criterion) {
    let mut group = c.benchmark_group("mix of 32");
    group.throughput(Throughput::Elements(32));
    for (name, allocator) in allocators() {
        let take = |i: usize| allocator.allocate(SIZES[i * 5 % SIZES.len()], Storage::Shared, "bench").expect("memory");
        group.bench_function(name, |b| {
            b.iter_batched(
                Vec::new,
                |mut held| {
                    held.extend((0..32).map(take));
                    while !held.is_empty() {
                        held.swap_remove(held.len() / 3);
                    }
                    held
                },
                BatchSize::SmallInput,
            );
        });
        assert_eq!(allocator.stats().total_acquired, allocator.stats().total_released, "{name}");
    }
    group.finish();
}

/// A buffer that is written, as a step does: what comes fresh from the system costs page faults.
fn written(c: &mut Criterion) {
    let mut group = c.benchmark_group("allocate, write and release");
    let bytes = vec![1u8; 1 << 20];
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    for (name, allocator) in allocators() {
        group.bench_function(name, |b| {
            b.iter(|| {
                let buffer = allocator.allocate(bytes.len() as u64, Storage::Shared, "bench").expect("memory");
                buffer.write(0, &bytes).expect("in range");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, single, mix, written);
criterion_main!(benches);
