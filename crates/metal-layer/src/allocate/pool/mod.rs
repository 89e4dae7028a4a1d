//! Heaps with sub-allocation: after warm-up nothing is asked of the device.

mod fit;
mod heaps;
mod whole_heap;

use crate::allocate::caching::CachingAllocator;
use crate::allocate::{Allocate, Allocation, Leak, Reclaim, WEIGHTS};
use crate::config::MemoryPoolConfig;
use crate::frontier::Frontier;
use crate::observe::stats::PoolStats;
use crate::sync::{Mutex, MutexGuard};
use crate::wiring::Wiring;
pub use fit::WorkingSet;
use garde::Validate;
use heaps::{Heaps, Range, Role};
use mlx_serving_device::{Device, DeviceError, Heap, Point, Result, Storage};
use mlx_serving_metrics::Histogram;
use slab::Slab;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
pub use whole_heap::WholeHeap;

/// Leaks that are reported one by one.
const LEAKS_NAMED: usize = 16;

/// Sub-allocates heaps that were taken from the device beforehand, in constant time. A range that is released is reused once
/// all that had been submitted by then has completed. What the heaps cannot serve, the plain allocator does.
#[derive(Debug)]
pub struct MemoryPool {
    pool: Arc<Pool>,
    warmup_bytes: Vec<u64>,
}

/// Backing of the allocations, which each holds until it is released.
#[derive(Debug)]
struct Pool {
    device: Arc<dyn Device>,
    frontier: Frontier,
    /// Serves what the heaps cannot.
    plain: CachingAllocator,
    track: bool,
    log_exhaustion: bool,
    /// True without graceful fallback: what the heaps cannot serve is refused.
    refuse: bool,
    /// Seconds that each allocation takes.
    durations: Histogram,
    allocations: Mutex<Allocations>,
}

#[derive(Debug)]
struct Allocations {
    heaps: Heaps,
    live: Slab<Live>,
    /// Released, waiting for submissions that may use them; in the order in which those complete.
    pending_free: VecDeque<(Vec<Point>, Held)>,
    /// Live allocations that the heaps could not serve.
    fallbacks: usize,
    /// True if the heaps ran out, and what they could not serve is not all released yet.
    exhausted: bool,
    stats: PoolStats,
}

#[derive(Debug)]
struct Live {
    held: Held,
    bytes: u64,
    tag: &'static str,
    since: Option<Instant>,
}

/// Backing of an allocation.
#[derive(Debug)]
enum Held {
    Range(Range),
    /// A heap of the pool as a whole.
    Whole(usize),
    /// The plain allocator's.
    Plain(Allocation),
    /// A heap that only this allocation has.
    Temporary(Arc<dyn Heap>),
}

impl Held {
    fn is_fallback(&self) -> bool {
        matches!(self, Held::Plain(_) | Held::Temporary(_))
    }
}

impl MemoryPool {
    /// Takes the heaps from the device and warms them up. Where the policy has no graceful fallback, what the heaps cannot serve is
    /// refused later, instead of getting dedicated buffers. The seconds of each allocation are recorded unless statistics are off.
    ///
    /// # Errors
    /// The device gives fewer than `min_heaps` heaps, or none for a warm-up size larger than one heap; or the configuration
    /// is out of its ranges.
    pub fn new(wiring: &Wiring, config: &MemoryPoolConfig) -> Result<Self> {
        config.validate().map_err(|e| DeviceError::Contract(format!("memory_pool: {e}")))?;
        config.check_across().map_err(DeviceError::Contract)?;
        let heaps = Heaps::new(wiring.device.as_ref(), config)?;
        let pool = Arc::new(Pool {
            plain: CachingAllocator::new(wiring),
            device: wiring.device.clone(),
            frontier: wiring.frontier.clone(),
            track: config.track_statistics,
            log_exhaustion: config.log_pool_exhaustion,
            refuse: !wiring.policy.graceful,
            durations: wiring.metrics.pool_acquire.clone(),
            allocations: Mutex::new(Allocations {
                heaps,
                live: Slab::new(),
                pending_free: VecDeque::new(),
                fallbacks: 0,
                exhausted: false,
                stats: PoolStats::default(),
            }),
        });
        let this = Self { pool, warmup_bytes: config.warmup_buffer_sizes_mb.iter().map(|mb| mb << 20).collect() };
        this.warmup()?;
        Ok(this)
    }

    /// Makes the system back the warm-up sizes with memory, side by side, where the next allocations will lie. A size larger than
    /// one heap gets a heap of its own, which stays.
    ///
    /// # Errors
    /// The device refuses such a heap.
    pub fn warmup(&self) -> Result<()> {
        let device = self.pool.device.as_ref();
        let mut allocations = self.pool.lock();
        allocations.settle();
        let mut sizes = self.warmup_bytes.clone();
        sizes.sort_unstable_by_key(|&bytes| std::cmp::Reverse(bytes));
        let (mut warmed, mut outcome) = (Vec::new(), Ok(()));
        for bytes in sizes {
            let large = bytes > allocations.heaps.heap_bytes();
            let role = if large { Role::Large { kept: true } } else { Role::Working };
            let found =
                allocations.heaps.allocate(device, bytes, Storage::Private, role).and_then(|found| match found {
                    Some((_, range)) => allocations.heaps.touch(&range).map(|()| warmed.push(range)),
                    None if large => Err(DeviceError::OutOfMemory {
                        requested: bytes,
                        what: "warming the memory pool up",
                        detail: "no heap of that size was given; lower memory_pool.warmup_buffer_sizes_mb".into(),
                    }),
                    None => {
                        tracing::warn!(mib = bytes >> 20, "a warm-up size finds no room beside the others");
                        Ok(())
                    }
                });
            outcome = outcome.and(found);
        }
        warmed.into_iter().for_each(|range| allocations.heaps.free(range));
        outcome
    }

    /// A heap that nothing lies in, for the caller alone; a temporary one if there is none.
    ///
    /// # Errors
    /// The device refuses the temporary heap.
    pub fn acquire_heap(&self) -> Result<WholeHeap> {
        let pool = &self.pool;
        let mut allocations = pool.lock();
        allocations.settle();
        let (heap, held) = match allocations.heaps.lend() {
            Some((entry, heap)) => (heap, Held::Whole(entry)),
            None => {
                let len = allocations.heaps.heap_bytes();
                pool.note_exhausted(&mut allocations, len, "heap");
                let heap = pool.device.new_heap(len, allocations.heaps.storage(Storage::Private))?;
                (heap.clone(), Held::Temporary(heap))
            }
        };
        let temporary = held.is_fallback();
        let id = pool.admit(&mut allocations, held, heap.len(), "heap");
        Ok(WholeHeap::new(heap, temporary, id, pool.clone()))
    }

    /// Returns a heap; dropping it does the same.
    ///
    /// # Errors
    /// The heap is another pool's, to which it has now been returned.
    pub fn release_heap(&self, heap: WholeHeap) -> Result<()> {
        if heap.is_of(self.pool.as_ref()) {
            return Ok(());
        }
        Err(DeviceError::Contract("the heap is of another memory pool; it went back to that one".into()))
    }

    /// Counts anew. What is held now counts as acquired, so that once it is released the two totals agree.
    pub fn reset_statistics(&self) {
        let mut allocations = self.pool.lock();
        let bytes = allocations.stats.bytes_in_use;
        let total_acquired = if self.pool.track { allocations.live.len() as u64 } else { 0 };
        allocations.stats =
            PoolStats { total_acquired, bytes_in_use: bytes, peak_bytes_in_use: bytes, ..PoolStats::default() };
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Allocations> {
        self.allocations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an allocation; its id.
    fn admit(&self, allocations: &mut Allocations, held: Held, bytes: u64, tag: &'static str) -> u64 {
        let fallback = held.is_fallback();
        allocations.fallbacks += usize::from(fallback);
        if self.track {
            let stats = &mut allocations.stats;
            stats.total_acquired += 1;
            stats.fallback_events += u64::from(fallback);
            stats.bytes_in_use += bytes;
            stats.peak_bytes_in_use = stats.peak_bytes_in_use.max(stats.bytes_in_use);
        }
        let since = self.track.then(Instant::now);
        allocations.live.insert(Live { held, bytes, tag, since }) as u64
    }

    /// Counts and logs that the heaps ran out, once until all that they could not serve is released.
    fn note_exhausted(&self, allocations: &mut Allocations, bytes: u64, tag: &'static str) {
        if std::mem::replace(&mut allocations.exhausted, true) {
            return;
        }
        if self.track {
            allocations.stats.exhaustion_events += 1;
        }
        if self.log_exhaustion {
            tracing::warn!(
                bytes,
                tag,
                "the memory pool's heaps are exhausted and dedicated buffers serve instead: raise \
                 metal_optimizations.memory_pool.num_heaps or heap_size_mb, or lower engine.kv_cache_tokens"
            );
        }
    }
}

impl Allocations {
    /// Frees what was released and is no longer used. What was released later waits for no less, so the first that still waits
    /// ends it.
    fn settle(&mut self) {
        while self.pending_free.front().is_some_and(|(points, _)| points.iter().all(Point::reached)) {
            if let Some((_, held)) = self.pending_free.pop_front() {
                self.free(held);
            }
        }
    }

    fn free(&mut self, held: Held) {
        match held {
            Held::Range(range) => self.heaps.free(range),
            Held::Whole(entry) => self.heaps.unlend(entry),
            // The plain allocator waits for whoever still uses it.
            Held::Plain(allocation) => drop(allocation),
            // Whoever still uses it holds views of its memory.
            Held::Temporary(heap) => drop(heap),
        }
    }
}

impl Allocate for MemoryPool {
    fn allocate(&self, len: u64, storage: Storage, tag: &'static str) -> Result<Allocation> {
        let pool = &self.pool;
        let began = pool.track.then(Instant::now);
        let role = if tag == WEIGHTS { Role::Weights } else { Role::Working };
        let mut allocations = pool.lock();
        allocations.settle();
        let (buffer, held) = match allocations.heaps.allocate(pool.device.as_ref(), len.max(1), storage, role)? {
            Some((buffer, range)) => (buffer, Held::Range(range)),
            None => {
                // Weights are no part of the configured heaps.
                if role == Role::Working {
                    pool.note_exhausted(&mut allocations, len, tag);
                    if pool.refuse {
                        return Err(refusal(len));
                    }
                }
                let plain = pool.plain.allocate(len, allocations.heaps.storage(storage), tag)?;
                ((*plain).clone(), Held::Plain(plain))
            }
        };
        let id = pool.admit(&mut allocations, held, len, tag);
        if let Some(began) = began {
            pool.durations.observe(began.elapsed().as_secs_f64());
        }
        Ok(Allocation::new(buffer, id, pool.clone()))
    }

    fn stats(&self) -> PoolStats {
        let mut allocations = self.pool.lock();
        allocations.settle();
        let mut stats = allocations.stats.clone();
        stats.bytes_reserved = self.pool.plain.stats().bytes_reserved;
        allocations.heaps.report(&mut stats);
        stats
    }

    /// Lists what is still held. Without `track_statistics`, ages are zero.
    fn leaks(&self) -> Vec<Leak> {
        let allocations = self.pool.lock();
        let age = |since: Option<Instant>| since.map_or(Duration::ZERO, |s| s.elapsed());
        let mut leaks: Vec<Leak> =
            allocations.live.iter().map(|(_, l)| Leak { tag: l.tag, bytes: l.bytes, age: age(l.since) }).collect();
        leaks.sort_by_key(|l| std::cmp::Reverse(l.age));
        leaks
    }

    /// The configured heaps stay.
    fn trim(&self) {
        let mut allocations = self.pool.lock();
        allocations.settle();
        allocations.heaps.drop_idle();
        self.pool.plain.trim();
    }

    fn expect_weights(&self, bytes: u64) {
        self.pool.lock().heaps.expect_weights(bytes);
    }
}

impl Reclaim for Pool {
    fn reclaim(&self, id: u64) {
        let mut allocations = self.lock();
        let Some(live) = allocations.live.try_remove(id as usize) else { return };
        if self.track {
            allocations.stats.total_released += 1;
            allocations.stats.bytes_in_use -= live.bytes;
        }
        allocations.fallbacks -= usize::from(live.held.is_fallback());
        allocations.exhausted &= allocations.fallbacks > 0;
        // Under the lock, so that the ranges are in order.
        let points = self.frontier.pending();
        if points.is_empty() || live.held.is_fallback() {
            allocations.free(live.held);
        } else {
            allocations.pending_free.push_back((points, live.held));
        }
    }
}

impl Drop for MemoryPool {
    fn drop(&mut self) {
        if let Some(report) = leak_report(&self.leaks()) {
            tracing::warn!("{report}");
        }
    }
}

/// Error of an exhausted pool that takes no dedicated buffers.
fn refusal(len: u64) -> DeviceError {
    let detail = "the memory pool's heaps are exhausted and graceful_fallback is off; raise \
                  metal_optimizations.memory_pool.num_heaps or heap_size_mb";
    DeviceError::OutOfMemory { requested: len, what: "an allocation from the memory pool", detail: detail.into() }
}

/// Allocations still held: tags, sizes and ages, oldest first. `None` for nothing.
fn leak_report(leaks: &[Leak]) -> Option<String> {
    if leaks.is_empty() {
        return None;
    }
    let bytes: u64 = leaks.iter().map(|l| l.bytes).sum();
    let named = leaks.iter().take(LEAKS_NAMED).map(|l| format!("{} ({} bytes, {:.1?})", l.tag, l.bytes, l.age));
    let rest = leaks.len().saturating_sub(LEAKS_NAMED);
    let more = (rest > 0).then(|| format!("{rest} more"));
    let list: Vec<String> = named.chain(more).collect();
    Some(format!(
        "the memory pool ends while {} allocations of {bytes} bytes are held: {}",
        leaks.len(),
        list.join(", ")
    ))
}

#[cfg(all(test, not(feature = "loom")))]
mod log_tests;
#[cfg(all(test, feature = "loom"))]
mod loom_tests;
#[cfg(all(test, not(feature = "loom")))]
mod model_tests;
#[cfg(test)]
mod test_device;
#[cfg(all(test, not(feature = "loom")))]
mod tests;
