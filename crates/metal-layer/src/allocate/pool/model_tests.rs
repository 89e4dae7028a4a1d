//! Random histories against a naive model: a list of who holds which bytes, and until when.

use super::test_device::{TestDevice, TestTimeline};
use super::tests::small;
use super::*;
use mlx_serving_device::Buffer;
use proptest::prelude::*;

/// An event.
#[derive(Debug, Clone)]
enum Act {
    Allocate {
        bytes: u64,
        storage: Storage,
        weights: bool,
    },
    /// Releases one of the live allocations.
    Release(usize),
    /// Work is submitted on one of two timelines, which may use all that is live.
    Submit(bool),
    /// The oldest work of one of them completes.
    Complete(bool),
    Trim,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let bytes = prop_oneof![4 => 1u64..5000, 3 => 1u64..2 << 20, 2 => 1u64..64 << 20, 1 => 60u64 << 20..140 << 20];
    let storage = prop_oneof![Just(Storage::Shared), Just(Storage::Private)];
    let allocate = (bytes, storage, prop::bool::weighted(0.1)).prop_map(|(bytes, storage, weights)| Act::Allocate {
        bytes,
        storage,
        weights,
    });
    let act = prop_oneof![
        5 => allocate,
        4 => any::<usize>().prop_map(Act::Release),
        2 => any::<bool>().prop_map(Act::Submit),
        2 => any::<bool>().prop_map(Act::Complete),
        1 => Just(Act::Trim),
    ];
    prop::collection::vec(act, 1..200)
}

/// Bytes that were released, and the values that the two timelines must reach before anyone gets them.
struct Waiting {
    buffer: Buffer,
    until: [u64; 2],
}

proptest! {
    #[test]
    fn ranges_never_overlap_and_wait_for_their_submissions(
        acts in acts(),
        unified in any::<bool>(),
        align in prop::sample::select(vec![64u64, 256, 4096]),
    ) {
        let device = TestDevice::new(unified, align);
        let wiring = Wiring::new(device.clone());
        let timelines: [Arc<dyn mlx_serving_device::Timeline>; 2] =
            [Arc::new(TestTimeline::default()), Arc::new(TestTimeline::default())];
        let tracks = timelines.clone().map(|t| wiring.frontier.track(t));
        let pool = MemoryPool::new(&wiring, &small()).unwrap();
        let (mut live, mut waiting): (Vec<Allocation>, Vec<Waiting>) = (Vec::new(), Vec::new());
        let (mut acquired, mut released, mut in_use, mut peak) = (0u64, 0u64, 0u64, 0u64);
        for act in acts {
            match act {
                Act::Allocate { bytes, storage, weights } => {
                    let new = pool.allocate(bytes, storage, if weights { WEIGHTS } else { "test" }).unwrap();
                    prop_assert_eq!(new.len(), bytes);
                    prop_assert_eq!(new.offset() % align, 0);
                    if storage == Storage::Shared || unified {
                        prop_assert_eq!(new.memory().storage(), Storage::Shared);
                    }
                    prop_assert!(live.iter().all(|a| !a.overlaps(&new)), "{:?} is held by another", *new);
                    let early = waiting.iter().find(|w| {
                        w.buffer.overlaps(&new) && (0..2).any(|i| timelines[i].value() < w.until[i])
                    });
                    prop_assert!(early.is_none(), "{:?} is still waited for", *new);
                    acquired += 1;
                    in_use += bytes;
                    peak = peak.max(in_use);
                    live.push(new);
                }
                Act::Release(i) if !live.is_empty() => {
                    let old = live.swap_remove(i % live.len());
                    let until = [tracks[0].latest().value, tracks[1].latest().value];
                    waiting.push(Waiting { buffer: old.slice(0..old.len()).unwrap(), until });
                    released += 1;
                    in_use -= old.len();
                }
                Act::Submit(track) => drop(tracks[usize::from(track)].issue()),
                Act::Complete(track) => {
                    let track = usize::from(track);
                    timelines[track].signal((timelines[track].value() + 1).min(tracks[track].latest().value));
                }
                Act::Trim => pool.trim(),
                Act::Release(_) => {}
            }
            let stats = pool.stats();
            prop_assert_eq!((stats.total_acquired, stats.total_released), (acquired, released));
            prop_assert_eq!((stats.bytes_in_use, stats.peak_bytes_in_use), (in_use, peak));
            prop_assert_eq!(pool.leaks().len(), live.len());
            prop_assert!((0.0..=1.0).contains(&stats.fragmentation), "{:?}", stats);
            prop_assert!((0.0..=1.0).contains(&stats.utilization), "{:?}", stats);
            prop_assert!(stats.available_count <= stats.pool_size);
            // Buffers that the model remembers keep memory alive that the pool has released.
            prop_assert!(stats.bytes_reserved <= device.counters().bytes_allocated);
        }
        live.clear();
        waiting.clear();
        timelines.iter().zip(&tracks).for_each(|(t, l)| t.signal(l.latest().value));
        pool.trim();
        let stats = pool.stats();
        prop_assert_eq!((stats.total_acquired, stats.bytes_in_use), (stats.total_released, 0));
        prop_assert_eq!((stats.available_count, stats.utilization, stats.fragmentation), (2, 0.0, 0.0));
        prop_assert_eq!(stats.bytes_reserved, 128 << 20);
        prop_assert_eq!(device.counters().bytes_allocated, 128 << 20);
    }
}
