use super::super::test_device::TestDevice;
use super::*;
use crate::Allocate;
use crate::allocate::pool::MemoryPool;
use crate::wiring::Wiring;
use mlx_serving_device::Device;

fn set(kv_layers: usize, kv_layer_mib: u64) -> WorkingSet {
    let others = vec![(2 * MIB, Storage::Private), (19 * MIB, Storage::Shared)];
    WorkingSet { kv_layers, kv_layer_bytes: kv_layer_mib * MIB, others }
}

fn told(config: &MemoryPoolConfig, set: &WorkingSet) -> Option<String> {
    config.fits(TestDevice::new(true, 64).info(), set)
}

#[test]
fn the_default_heaps_hold_a_7b_models_default_cache() {
    assert_eq!(told(&MemoryPoolConfig::default(), &set(28, 32)), None);
}

#[test]
fn what_does_not_fit_is_told_with_the_key_that_helps() {
    let config = MemoryPoolConfig { warmup_buffer_sizes_mb: vec![32], ..MemoryPoolConfig::default() };
    for (set, parts) in [
        (set(40, 32), ["40 layers of 32 MiB", "4 heaps of 256 MiB", "raise memory_pool.num_heaps to 6"]),
        (set(40, 128), ["40 layers", "dedicated", "raise memory_pool.heap_size_mb to 2048"]),
        (set(400, 128), ["400 layers", "dedicated", "lower engine.kv_cache_tokens"]),
        (set(2, 2049), ["2 layers", "2 buffers", "lower engine.kv_cache_tokens"]),
    ] {
        let message = told(&config, &set).unwrap();
        assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} are not all in: {message}");
    }
    // Layers larger than a heap get their own.
    assert_eq!(told(&config, &set(40, 300)), None);
}

#[test]
fn heaps_beyond_the_devices_memory_are_told() {
    let mut info = TestDevice::new(true, 64).info().clone();
    info.memory_budget = 1000 * MIB;
    let message = MemoryPoolConfig::default().fits(&info, &set(1, 1)).unwrap();
    assert!(message.contains("1024 MiB") && message.contains("1000"), "{message}");
}

#[test]
fn the_pool_does_what_was_told() {
    for unified in [true, false] {
        for (layers, mib) in [(1, 1), (7, 16), (9, 16), (3, 33), (2, 63), (5, 90), (3, 300), (40, 7)] {
            let config =
                MemoryPoolConfig { heap_size_mb: 64, num_heaps: 3, max_heap_size_mb: 256, ..Default::default() };
            let config = MemoryPoolConfig { warmup_buffer_sizes_mb: vec![16, 128], ..config };
            let (device, set) = (TestDevice::new(unified, 64), set(layers, mib));
            let pool = MemoryPool::new(&Wiring::new(device.clone()), &config).unwrap();
            let held: Vec<_> = set.buffers().map(|(bytes, s)| pool.allocate(bytes, s, "test").unwrap()).collect();
            let outside = pool.stats().fallback_events as usize;
            assert_eq!(config.place(device.info(), &set).dedicated, outside, "{layers} layers of {mib} MiB, {unified}");
            let reserved = pool.stats().bytes_reserved;
            assert_eq!(config.bytes(device.info(), &set), reserved, "{layers} layers of {mib} MiB, {unified}");
            drop(held);
        }
    }
}
