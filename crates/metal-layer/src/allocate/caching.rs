use crate::allocate::{Allocate, Allocation, Leak, Reclaim};
use crate::frontier::Frontier;
use crate::observe::stats::PoolStats;
use crate::sync::{Mutex, MutexGuard};
use crate::wiring::Wiring;
use mlx_serving_device::{Buffer, Device, Point, Result, Storage};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// Keep at most this many bytes for reuse.
const CACHE_LIMIT: u64 = 1 << 30;

/// The plain way, by MLX's rule: dedicated buffers, rounded up to size classes, kept for reuse when they are released. A cached
/// buffer serves a request if it wastes at most as much again as was asked for.
#[derive(Debug)]
pub struct CachingAllocator {
    cache: Arc<BufferCache>,
}

/// Backing of the allocations, which each holds until it is released.
#[derive(Debug)]
struct BufferCache {
    device: Arc<dyn Device>,
    frontier: Frontier,
    cache_limit: u64,
    buffers: Mutex<Buffers>,
}

#[derive(Debug, Default)]
struct Buffers {
    next_id: u64,
    live: HashMap<u64, Live>,
    /// Released, waiting for submissions that may use them.
    pending_free: Vec<(Vec<Point>, Buffer)>,
    /// Free buffers by storage (true for shared) and length.
    free: BTreeMap<(bool, u64), Vec<Buffer>>,
    cached: u64,
    stats: PoolStats,
}

#[derive(Debug)]
struct Live {
    whole: Buffer,
    asked: u64,
    tag: &'static str,
    since: Instant,
}

impl CachingAllocator {
    /// An allocator that keeps buffers for reuse.
    pub fn new(wiring: &Wiring) -> Self {
        Self::with_cache(wiring, CACHE_LIMIT)
    }

    /// An allocator that keeps nothing: every request goes to the device. For comparison.
    pub fn direct(wiring: &Wiring) -> Self {
        Self::with_cache(wiring, 0)
    }

    fn with_cache(wiring: &Wiring, cache_limit: u64) -> Self {
        let (device, frontier) = (wiring.device.clone(), wiring.frontier.clone());
        Self { cache: Arc::new(BufferCache { device, frontier, cache_limit, buffers: Mutex::default() }) }
    }
}

/// MLX's rounding: to pages, so that near sizes share buffers.
fn size_class(len: u64) -> u64 {
    const PAGE: u64 = 16 << 10;
    if len > PAGE { len.next_multiple_of(PAGE) } else { len.next_power_of_two().max(256) }
}

impl BufferCache {
    fn lock(&self) -> MutexGuard<'_, Buffers> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffers {
    /// Moves buffers whose last use has completed to the free ones.
    fn settle(&mut self, limit: u64) {
        for (points, buffer) in std::mem::take(&mut self.pending_free) {
            if points.iter().all(Point::reached) {
                self.keep(buffer, limit);
            } else {
                self.pending_free.push((points, buffer));
            }
        }
    }

    fn keep(&mut self, buffer: Buffer, limit: u64) {
        if self.cached + buffer.len() > limit {
            self.stats.bytes_reserved -= buffer.len();
            return;
        }
        self.cached += buffer.len();
        let shared = buffer.memory().storage() == Storage::Shared;
        self.free.entry((shared, buffer.len())).or_default().push(buffer);
    }

    fn take_cached(&mut self, len: u64, storage: Storage) -> Option<Buffer> {
        let shared = storage == Storage::Shared;
        let (&key, _) = self.free.range((shared, len)..=(shared, 2 * len)).next()?;
        let buffers = self.free.get_mut(&key)?;
        let buffer = buffers.pop();
        if buffers.is_empty() {
            self.free.remove(&key);
        }
        self.cached -= key.1;
        buffer
    }
}

impl Allocate for CachingAllocator {
    fn allocate(&self, len: u64, storage: Storage, tag: &'static str) -> Result<Allocation> {
        let class = size_class(len.max(1));
        let mut buffers = self.cache.lock();
        buffers.settle(self.cache.cache_limit);
        let whole = match buffers.take_cached(class, storage) {
            Some(buffer) => buffer,
            None => {
                let buffer = self.cache.device.new_buffer(class, storage)?;
                buffers.stats.bytes_reserved += buffer.len();
                buffer
            }
        };
        let buffer = whole.slice(0..len.max(1))?;
        buffers.next_id += 1;
        let id = buffers.next_id;
        buffers.stats.total_acquired += 1;
        buffers.stats.bytes_in_use += len;
        buffers.stats.peak_bytes_in_use = buffers.stats.peak_bytes_in_use.max(buffers.stats.bytes_in_use);
        buffers.live.insert(id, Live { whole, asked: len, tag, since: Instant::now() });
        Ok(Allocation::new(buffer, id, self.cache.clone()))
    }

    fn stats(&self) -> PoolStats {
        self.cache.lock().stats.clone()
    }

    fn leaks(&self) -> Vec<Leak> {
        let buffers = self.cache.lock();
        let mut leaks: Vec<Leak> =
            buffers.live.values().map(|l| Leak { tag: l.tag, bytes: l.asked, age: l.since.elapsed() }).collect();
        leaks.sort_by_key(|l| std::cmp::Reverse(l.age));
        leaks
    }

    fn trim(&self) {
        let mut buffers = self.cache.lock();
        buffers.settle(self.cache.cache_limit);
        buffers.stats.bytes_reserved -= buffers.cached;
        buffers.cached = 0;
        buffers.free.clear();
    }
}

impl Reclaim for BufferCache {
    fn reclaim(&self, id: u64) {
        let mut buffers = self.lock();
        let Some(live) = buffers.live.remove(&id) else { return };
        buffers.stats.total_released += 1;
        buffers.stats.bytes_in_use -= live.asked;
        let points = self.frontier.pending();
        if points.is_empty() {
            buffers.keep(live.whole, self.cache_limit);
        } else {
            buffers.pending_free.push((points, live.whole));
        }
    }
}
