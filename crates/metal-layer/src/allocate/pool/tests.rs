#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::test_device::{TestDevice, TestTimeline};
use super::*;
use crate::config::FallbackPolicy;
use crate::frontier::Track;
use mlx_serving_device::Buffer;
use mlx_serving_metrics::{Families, Format};
use std::sync::atomic::Ordering::SeqCst;

const MIB: u64 = 1 << 20;

/// Configuration of two heaps of 64 MiB, none of them warm.
pub(super) fn small() -> MemoryPoolConfig {
    MemoryPoolConfig {
        heap_size_mb: 64,
        num_heaps: 2,
        warmup_buffer_sizes_mb: Vec::new(),
        max_heap_size_mb: 256,
        ..MemoryPoolConfig::default()
    }
}

struct Rig {
    device: Arc<TestDevice>,
    pool: MemoryPool,
    track: Track,
}

fn rig_wired(device: &Arc<TestDevice>, wiring: Wiring, config: &MemoryPoolConfig) -> Rig {
    let track = wiring.frontier.track(Arc::new(TestTimeline::default()));
    let pool = MemoryPool::new(&wiring, config).unwrap();
    Rig { device: device.clone(), pool, track }
}

fn rig_on(device: Arc<TestDevice>, config: &MemoryPoolConfig) -> Rig {
    rig_wired(&device, Wiring::new(device.clone()), config)
}

fn rig(config: &MemoryPoolConfig) -> Rig {
    rig_on(TestDevice::new(true, 64), config)
}

impl Rig {
    fn take(&self, bytes: u64) -> Allocation {
        self.pool.allocate(bytes, Storage::Private, "test").unwrap()
    }
    fn allocations(&self) -> u64 {
        self.device.counters().allocations
    }
}

fn place(buffer: &Buffer) -> (u64, u64) {
    (buffer.offset(), buffer.len())
}

#[test]
fn nothing_is_asked_of_the_device_while_the_heaps_last() {
    let rig = rig(&small());
    let before = rig.allocations();
    assert_eq!(before, 2);
    for round in 0..1000 {
        let held: Vec<_> = (1..20).map(|i| rig.take(i * 1000 + round)).collect();
        assert!(held.iter().all(|a| a.memory().len() == 64 * MIB));
    }
    assert_eq!(rig.allocations(), before);
    let stats = rig.pool.stats();
    assert_eq!((stats.total_acquired, stats.total_released), (19_000, 19_000));
    assert_eq!((stats.fallback_events, stats.bytes_in_use, stats.bytes_reserved), (0, 0, 128 * MIB));
    assert_eq!((stats.utilization, stats.fragmentation, stats.available_count), (0.0, 0.0, 2));
}

#[test]
fn a_range_is_reused_only_after_all_that_was_submitted_when_it_was_let_go() {
    let rig = rig(&small());
    let first = rig.take(64 * MIB);
    let (memory, other) = (first.memory().clone(), rig.take(64 * MIB));
    let point = rig.track.issue();
    drop(first);
    // Submitted afterward: nothing that was released before waits for it.
    rig.track.issue();
    let fallback = rig.take(64 * MIB);
    assert!(!Arc::ptr_eq(fallback.memory(), &memory) && !Arc::ptr_eq(fallback.memory(), other.memory()));
    assert_eq!(rig.pool.stats().fallback_events, 1);
    point.timeline.signal(point.value);
    assert!(Arc::ptr_eq(rig.take(64 * MIB).memory(), &memory));
}

#[test]
fn an_episode_of_exhaustion_counts_once_and_each_fallback_too() {
    let rig = rig(&small());
    let whole = [rig.take(64 * MIB), rig.take(64 * MIB)];
    let first = [rig.take(MIB), rig.take(MIB)];
    let stats = rig.pool.stats();
    assert_eq!((stats.exhaustion_events, stats.fallback_events, stats.total_acquired), (1, 2, 4));
    assert_eq!((stats.available_count, stats.utilization), (0, 1.0));
    drop(first);
    let second = rig.take(MIB);
    let stats = rig.pool.stats();
    assert_eq!((stats.exhaustion_events, stats.fallback_events), (2, 3));
    drop((whole, second));
    let stats = rig.pool.stats();
    assert_eq!((stats.total_acquired, stats.total_released, stats.bytes_in_use), (5, 5, 0));
    // Dedicated buffers are kept for the next time, until they are trimmed.
    assert_eq!(stats.bytes_reserved, 130 * MIB);
    rig.pool.trim();
    assert_eq!(rig.pool.stats().bytes_reserved, 128 * MIB);
    assert_eq!(rig.device.counters().bytes_allocated, 128 * MIB);
}

#[test]
fn fallbacks_too_stop_asking_the_device_once_they_go_round() {
    let rig = rig(&small());
    let _whole = [rig.take(64 * MIB), rig.take(64 * MIB)];
    drop(rig.take(5000));
    let before = rig.allocations();
    (0..100).for_each(|_| drop(rig.take(5000)));
    assert_eq!(rig.allocations(), before);
}

#[test]
fn a_refused_fallback_is_an_error_and_the_others_go_on() {
    let rig = rig(&small());
    let whole = rig.take(64 * MIB);
    let _rest = rig.take(60 * MIB);
    rig.device.buffers_left.store(0, SeqCst);
    let error = rig.pool.allocate(64 * MIB, Storage::Shared, "kv cache").unwrap_err();
    assert!(matches!(error, DeviceError::OutOfMemory { requested: 0x400_0000, .. }), "{error}");
    let small = rig.take(MIB);
    drop((whole, small));
    drop(rig.take(64 * MIB));
    let stats = rig.pool.stats();
    assert_eq!((stats.exhaustion_events, stats.fallback_events), (1, 0));
    assert_eq!((stats.total_acquired, stats.total_released), (4, 3));
}

#[test]
fn warm_up_touches_what_the_next_allocations_get_and_keeps_it() {
    let rig = rig(&MemoryPoolConfig { warmup_buffer_sizes_mb: vec![8, 40, 128], ..small() });
    let touched = rig.device.tally.touched.lock().unwrap().clone();
    assert_eq!(touched, [(128 * MIB, 0..128 * MIB), (64 * MIB, 0..40 * MIB), (64 * MIB, 40 * MIB..48 * MIB)]);
    let before = rig.allocations();
    assert_eq!(before, 3, "two heaps, and one for 128 MiB");
    let stats = rig.pool.stats();
    assert_eq!((stats.total_acquired, stats.pool_size, stats.available_count), (0, 2, 2));
    assert_eq!(stats.bytes_reserved, 256 * MIB);
    // The warmed ranges are still there, and the first to be used.
    assert_eq!(place(&rig.take(48 * MIB)), (0, 48 * MIB));
    assert_eq!(rig.take(128 * MIB).memory().len(), 128 * MIB);
    rig.pool.trim();
    rig.pool.warmup().unwrap();
    assert_eq!(rig.allocations(), before);
    assert_eq!(rig.pool.stats().bytes_reserved, 256 * MIB);
}

#[test]
fn what_is_larger_than_a_heap_gets_its_own_up_to_the_limit() {
    let rig = rig(&small());
    let layer = rig.take(100 * MIB);
    assert_eq!(layer.memory().len(), 104 * MIB, "rounded up to what the sub-allocator surely finds");
    assert!(rig.take(300 * MIB).memory().len() >= 300 * MIB);
    let stats = rig.pool.stats();
    assert_eq!((stats.fallback_events, stats.exhaustion_events), (1, 1), "300 MiB are beyond max_heap_size_mb");
    drop(layer);
    // The heap stays for the next of its size, and makes room for one that it cannot hold.
    let before = rig.allocations();
    drop(rig.take(90 * MIB));
    assert_eq!(rig.allocations(), before);
    drop(rig.take(200 * MIB));
    rig.pool.trim();
    let stats = rig.pool.stats();
    assert_eq!((stats.bytes_reserved, stats.pool_size), (128 * MIB, 2));
}

#[test]
fn large_heaps_do_not_pile_up() {
    let rig = rig(&small());
    for mib in 70..250 {
        drop(rig.take(mib * MIB));
    }
    let stats = rig.pool.stats();
    assert!(stats.bytes_reserved <= (128 + 256) * MIB, "{stats:?}");
    assert_eq!(stats.fallback_events, 0);
}

#[test]
fn weights_have_heaps_of_their_own_that_go_with_them() {
    let rig = rig(&small());
    rig.pool.expect_weights(300 * MIB);
    let weights: Vec<_> = (0..75).map(|_| rig.pool.allocate(4 * MIB, Storage::Private, WEIGHTS).unwrap()).collect();
    assert_eq!(rig.allocations(), 2 + 2, "256 MiB, then the rest");
    let stats = rig.pool.stats();
    assert_eq!((stats.bytes_in_use, stats.utilization, stats.available_count), (300 * MIB, 0.0, 2));
    assert_eq!((stats.bytes_reserved, stats.fallback_events), (428 * MIB, 0));
    let point = rig.track.issue();
    drop(weights);
    assert_eq!(rig.pool.stats().bytes_reserved, 428 * MIB, "a step may still read them");
    point.timeline.signal(point.value);
    assert_eq!(rig.pool.stats().bytes_reserved, 128 * MIB);
    assert_eq!(rig.device.counters().bytes_allocated, 128 * MIB);
}

#[test]
fn weights_that_nobody_announced_are_served_too() {
    let rig = rig(&small());
    let _small = rig.pool.allocate(1000, Storage::Private, WEIGHTS).unwrap();
    let _more = rig.pool.allocate(15 * MIB, Storage::Private, WEIGHTS).unwrap();
    let _tall = rig.pool.allocate(100 * MIB, Storage::Private, WEIGHTS).unwrap();
    assert_eq!(rig.allocations(), 2 + 2);
    // Longer than any heap may be: a dedicated buffer, and no exhaustion of the configured heaps.
    let _longest = rig.pool.allocate(257 * MIB, Storage::Private, WEIGHTS).unwrap();
    let stats = rig.pool.stats();
    assert_eq!((stats.fallback_events, stats.exhaustion_events), (1, 0));
}

#[test]
fn discrete_devices_have_one_shared_heap_and_unified_ones_only_shared() {
    let rig = rig_on(TestDevice::new(false, 64), &MemoryPoolConfig { num_heaps: 3, ..small() });
    let storage = |s| rig.pool.allocate(60 * MIB, s, "test").unwrap();
    let held = [storage(Storage::Shared), storage(Storage::Private), storage(Storage::Private)];
    assert_eq!(held.each_ref().map(|a| a.memory().storage()), [Storage::Shared, Storage::Private, Storage::Private]);
    assert_eq!(rig.pool.stats().fallback_events, 0);
    assert_eq!(storage(Storage::Shared).memory().storage(), Storage::Shared);
    assert_eq!(rig.pool.stats().fallback_events, 1);
    let unified = rig_on(TestDevice::new(true, 64), &small());
    assert_eq!(unified.take(1).memory().storage(), Storage::Shared);
}

#[test]
fn offsets_keep_to_the_devices_alignment() {
    for align in [16, 256, 4096, 65_536] {
        let rig = rig_on(TestDevice::new(true, align), &small());
        let held: Vec<_> = (1..50).map(|i| rig.take(i * 777)).collect();
        assert!(held.iter().all(|a| a.offset() % align.max(256) == 0), "{align}");
        assert!(held.iter().enumerate().all(|(i, a)| held[..i].iter().all(|b| !a.overlaps(b))), "{align}");
    }
}

#[test]
fn no_bytes_are_a_range_all_the_same() {
    let rig = rig(&small());
    assert_eq!(rig.take(0).len(), 1);
}

#[test]
fn too_few_heaps_are_an_error_and_enough_are_not() {
    let config = MemoryPoolConfig { num_heaps: 4, min_heaps: 2, ..small() };
    for (given, starts) in [(0, false), (1, false), (2, true), (3, true)] {
        let device = TestDevice::new(true, 64);
        device.heaps_left.store(given, SeqCst);
        match MemoryPool::new(&Wiring::new(device.clone()), &config) {
            Ok(pool) => assert!(starts && pool.stats().pool_size == given as usize, "{given}"),
            Err(error) => {
                assert!(!starts, "{given}");
                let text = error.to_string();
                for part in ["memory pool", &format!("{given} of 4"), "min_heaps is 2", "heap_size_mb"] {
                    assert!(text.contains(part), "{part} is not in: {text}");
                }
                assert_eq!(device.counters().bytes_allocated, 0);
            }
        }
    }
}

#[test]
fn a_refused_heap_for_warm_up_is_an_error() {
    let device = TestDevice::new(true, 64);
    device.heaps_left.store(2, SeqCst);
    let config = MemoryPoolConfig { warmup_buffer_sizes_mb: vec![8, 128], ..small() };
    let error = MemoryPool::new(&Wiring::new(device), &config).unwrap_err().to_string();
    assert!(error.contains("warmup_buffer_sizes_mb") && error.contains("134217728"), "{error}");
}

#[test]
fn a_configuration_out_of_its_ranges_is_refused() {
    for (key, config) in [
        ("heap_size_mb", MemoryPoolConfig { heap_size_mb: 1, ..small() }),
        ("num_heaps", MemoryPoolConfig { num_heaps: 4, min_heaps: 5, ..small() }),
        ("max_heap_size_mb", MemoryPoolConfig { heap_size_mb: 512, ..small() }),
    ] {
        let error = MemoryPool::new(&Wiring::new(TestDevice::new(true, 64)), &config).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[test]
fn a_heap_can_be_had_as_a_whole_while_nothing_lies_in_it() {
    let rig = rig(&small());
    let part = rig.take(100);
    let whole = rig.pool.acquire_heap().unwrap();
    assert_eq!(whole.len(), 64 * MIB);
    assert!(!Arc::ptr_eq(whole.place(0, 64).unwrap().memory(), part.memory()));
    assert_eq!(rig.pool.stats().available_count, 0);
    // Nothing is cut from a heap that is lent.
    let rest = rig.take(50 * MIB);
    assert!(Arc::ptr_eq(rest.memory(), part.memory()));
    let temporary = rig.pool.acquire_heap().unwrap();
    assert_eq!((whole.is_temporary(), temporary.is_temporary()), (false, true));
    let stats = rig.pool.stats();
    assert_eq!((stats.exhaustion_events, stats.fallback_events, stats.total_acquired), (1, 1, 4));
    let point = rig.track.issue();
    rig.pool.release_heap(whole).unwrap();
    rig.pool.release_heap(temporary).unwrap();
    assert_eq!(rig.pool.stats().available_count, 0, "a submission may still use it");
    point.timeline.signal(point.value);
    drop((part, rest));
    let stats = rig.pool.stats();
    assert_eq!((stats.available_count, stats.total_released, stats.total_acquired), (2, 4, 4));
    assert_eq!(rig.device.counters().bytes_allocated, 128 * MIB);
}

#[test]
fn a_foreign_heap_is_refused_and_goes_home() {
    let (a, b) = (rig(&small()), rig(&small()));
    let heap = a.pool.acquire_heap().unwrap();
    let error = b.pool.release_heap(heap).unwrap_err();
    assert!(error.to_string().contains("another"), "{error}");
    assert_eq!(b.pool.stats().total_released, 0);
    assert_eq!(a.pool.stats().available_count, 2);
}

#[test]
fn leaks_are_told_with_tag_size_and_age() {
    let rig = rig(&small());
    assert_eq!(leak_report(&rig.pool.leaks()), None);
    let first = rig.pool.allocate(1000, Storage::Shared, "staging").unwrap();
    let _second = rig.pool.allocate(77, Storage::Shared, "step inputs").unwrap();
    let leaks = rig.pool.leaks();
    assert_eq!(leaks.iter().map(|l| (l.tag, l.bytes)).collect::<Vec<_>>(), [("staging", 1000), ("step inputs", 77)]);
    assert!(leaks[0].age >= leaks[1].age);
    let report = leak_report(&leaks).unwrap();
    for part in ["2 allocations of 1077 bytes", "staging (1000 bytes, ", "step inputs (77 bytes, "] {
        assert!(report.contains(part), "{part} is not in: {report}");
    }
    drop(first);
    assert_eq!(rig.pool.leaks().len(), 1);
    let many = vec![Leak { tag: "t", bytes: 1, age: Duration::ZERO }; LEAKS_NAMED + 3];
    assert!(leak_report(&many).unwrap().ends_with(", 3 more"));
}

#[test]
fn allocations_outlive_the_pool() {
    let rig = rig(&small());
    let held = rig.take(1000);
    drop(rig.pool);
    held.write(0, &[1u8]).unwrap();
    drop(held);
    assert_eq!(rig.device.counters().bytes_allocated, 0);
}

#[test]
fn a_reset_keeps_later_leak_checks_right() {
    let rig = rig(&small());
    let held = rig.take(1000);
    drop(rig.take(5000));
    rig.pool.reset_statistics();
    let stats = rig.pool.stats();
    assert_eq!((stats.total_acquired, stats.total_released), (1, 0));
    assert_eq!((stats.bytes_in_use, stats.peak_bytes_in_use), (1000, 1000));
    drop(held);
    let stats = rig.pool.stats();
    assert_eq!((stats.total_acquired, stats.total_released, stats.bytes_in_use), (1, 1, 0));
}

#[test]
fn without_statistics_only_what_the_heaps_know_is_told() {
    let rig = rig(&MemoryPoolConfig { track_statistics: false, ..small() });
    let held = [rig.take(64 * MIB), rig.take(64 * MIB), rig.take(MIB)];
    let stats = rig.pool.stats();
    assert_eq!((stats.total_acquired, stats.fallback_events, stats.exhaustion_events), (0, 0, 0));
    assert_eq!((stats.pool_size, stats.available_count, stats.utilization), (2, 0, 1.0));
    assert_eq!(rig.pool.leaks().len(), 3, "leaks are still known");
    assert!(rig.pool.leaks().iter().all(|l| l.age == Duration::ZERO));
    drop(held);
    rig.pool.reset_statistics();
    let stats = rig.pool.stats();
    assert_eq!((stats.total_acquired, stats.total_released, stats.available_count), (0, 0, 2));
}

#[test]
fn fragmentation_is_the_part_of_free_memory_that_lies_apart() {
    let rig = rig(&small());
    let held: Vec<_> = (0..8).map(|_| rig.take(8 * MIB)).collect();
    let mut odd = held.into_iter().enumerate().filter(|(i, _)| i % 2 == 1).map(|(_, a)| a).collect::<Vec<_>>();
    // Heap one: four free ranges of 8 MiB; heap two: 64 MiB in one.
    let stats = rig.pool.stats();
    assert!((stats.fragmentation - (1.0 - 72.0 / 96.0)).abs() < 1e-9, "{stats:?}");
    odd.clear();
    assert_eq!(rig.pool.stats().fragmentation, 0.0);
}

#[test]
fn a_panic_while_allocating_poisons_nobody() {
    let rig = rig(&small());
    let pool = rig.pool.pool.clone();
    let panicked = std::thread::spawn(move || {
        let _allocations = pool.lock();
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    drop(rig.take(100));
    assert_eq!(rig.pool.stats().total_released, 1);
}

#[test]
fn allocations_are_timed_unless_statistics_are_off() {
    for (track, timed) in [(true, "m_count 3"), (false, "m_count 0")] {
        let wiring = Wiring::new(TestDevice::new(true, 64));
        let config = MemoryPoolConfig { track_statistics: track, ..small() };
        let pool = MemoryPool::new(&wiring, &config).unwrap();
        (0..3).for_each(|_| drop(pool.allocate(100, Storage::Shared, "test").unwrap()));
        let mut families = Families::default();
        families.labeled(&[]).histogram("m", "Seconds.", &wiring.metrics.pool_acquire);
        let text = families.write(Format::OpenMetrics).unwrap();
        assert!(text.contains(timed), "{text}");
    }
}

#[test]
fn a_pool_that_may_not_fall_back_refuses_what_the_heaps_cannot_serve() {
    let device = TestDevice::new(true, 64);
    let policy = FallbackPolicy { graceful: false, log: false };
    let rig = rig_wired(&device, Wiring { policy, ..Wiring::new(device.clone()) }, &small());
    let whole = rig.take(64 * MIB);
    let _rest = rig.take(64 * MIB);
    let error = rig.pool.allocate(100, Storage::Private, "test").unwrap_err().to_string();
    assert!(error.contains("graceful_fallback") && error.contains("num_heaps"), "{error}");
    drop(whole);
    drop(rig.take(100));
    let stats = rig.pool.stats();
    assert_eq!((stats.exhaustion_events, stats.fallback_events, stats.total_acquired), (1, 0, 3));
}
