use crate::sync::Line;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Splits one op's items over the workers, once: each works through its own contiguous part in chunks, then helps the next
/// worker with what is left of its part. Parts keep memory streams sequential; helping absorbs whatever slows a core down.
#[derive(Debug)]
pub(crate) struct Share {
    /// Chunks taken of each worker's part.
    taken: Box<[Line<AtomicUsize>]>,
}

impl Share {
    pub(crate) fn new(workers: usize) -> Self {
        Self { taken: (0..workers).map(|_| Line::default()).collect() }
    }

    /// The chunks of `chunk` items that `worker` should do. All workers say the same `items` and `chunk`; every chunk comes out
    /// once over all of them.
    pub(crate) fn take(&self, worker: usize, items: usize, chunk: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let workers = self.taken.len();
        let chunks = items.div_ceil(chunk);
        (0..workers).flat_map(move |turn| {
            let owner = (worker + turn) % workers;
            let part = part(chunks, owner, workers);
            std::iter::from_fn(move || {
                // Relaxed: the counter only hands out numbers; the barrier after the op publishes the work.
                let at = part.start + self.taken[owner].0.fetch_add(1, Relaxed);
                (at < part.end).then(|| at * chunk..((at + 1) * chunk).min(items))
            })
        })
    }
}

/// The part of `items` that `worker` of `workers` does, when each does one contiguous part.
pub(crate) fn part(items: usize, worker: usize, workers: usize) -> Range<usize> {
    items * worker / workers..items * (worker + 1) / workers
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_item_comes_out_once(items in 0usize..200, chunk in 1usize..20, workers in 1usize..5, late in 0usize..5) {
            let share = Share::new(workers);
            let mut seen = vec![0; items];
            for turn in 0..workers {
                for range in share.take((turn + late) % workers, items, chunk) {
                    range.for_each(|i| seen[i] += 1);
                }
            }
            prop_assert!(seen.iter().all(|&n| n == 1));
        }

        #[test]
        fn parts_cover_everything(items in 0usize..200, workers in 1usize..9) {
            let covered: Vec<usize> = (0..workers).flat_map(|w| part(items, w, workers)).collect();
            prop_assert_eq!(covered, (0..items).collect::<Vec<_>>());
        }
    }
}
