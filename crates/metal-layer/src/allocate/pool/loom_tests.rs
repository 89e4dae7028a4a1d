//! Small histories in every interleaving: `cargo test -p mlx-serving-metal-layer --features loom --lib loom`.

use super::test_device::{TestDevice, TestTimeline};
use super::*;
use crate::frontier::Track;
use mlx_serving_device::Buffer;

const HEAP: u64 = 64 << 20;

fn pool() -> (Arc<MemoryPool>, Track) {
    let config = MemoryPoolConfig {
        heap_size_mb: 64,
        num_heaps: 2,
        warmup_buffer_sizes_mb: Vec::new(),
        max_heap_size_mb: 256,
        track_statistics: true,
        ..MemoryPoolConfig::default()
    };
    let wiring = Wiring::new(TestDevice::new(true, 64));
    let track = wiring.frontier.track(Arc::new(TestTimeline::default()));
    (Arc::new(MemoryPool::new(&wiring, &config).unwrap()), track)
}

fn take(pool: &MemoryPool, bytes: u64) -> Allocation {
    pool.allocate(bytes, Storage::Shared, "loom").unwrap()
}

/// Bytes handed out now.
type Held = Arc<Mutex<Vec<Buffer>>>;

/// Takes a range that nobody else holds, and releases it.
fn use_one(pool: &MemoryPool, held: &Held, bytes: u64) {
    let mine = take(pool, bytes);
    {
        let mut held = held.lock().unwrap();
        assert!(held.iter().all(|other| !other.overlaps(&mine)), "two hold {mine:?}");
        held.push((*mine).clone());
    }
    held.lock().unwrap().retain(|other| !other.overlaps(&mine));
    drop(mine);
}

#[test]
fn loom_live_ranges_never_overlap() {
    loom::model(|| {
        let (pool, _track) = pool();
        let held = Held::default();
        let (other_pool, other_held) = (pool.clone(), held.clone());
        // Three halves of a heap's worth for two heaps.
        let other = loom::thread::spawn(move || use_one(&other_pool, &other_held, HEAP));
        use_one(&pool, &held, HEAP / 2);
        use_one(&pool, &held, HEAP);
        other.join().unwrap();
        let stats = pool.stats();
        assert_eq!((stats.total_acquired, stats.total_released, stats.available_count), (3, 3, 2));
    });
}

#[test]
fn loom_a_range_waits_for_its_point() {
    loom::model(|| {
        let (pool, track) = pool();
        let (first, _rest) = (take(&pool, HEAP), take(&pool, HEAP));
        let before = (*first).clone();
        let point = track.issue();
        let done = point.clone();
        let releaser = loom::thread::spawn(move || drop(first));
        let device = loom::thread::spawn(move || done.timeline.signal(done.value));
        let next = take(&pool, HEAP);
        assert!(!next.overlaps(&before) || point.reached(), "reused before its submission completed");
        releaser.join().unwrap();
        device.join().unwrap();
        drop(next);
        assert!(take(&pool, HEAP).overlaps(&before), "free once it has completed");
    });
}
