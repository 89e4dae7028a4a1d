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
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    device: Arc<dyn Device>,
    frontier: Frontier,
    cache_limit: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    live: HashMap<u64, Live>,
    /// Released, waiting for submissions that may use them.
    pending_free: Vec<(Vec<Point>, Buffer)>,
    /// By storage and length.
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
        Self { shared: Arc::new(Shared { device, frontier, cache_limit, state: Mutex::default() }) }
    }
}

/// MLX's rounding: to pages, so that near sizes share buffers.
fn size_class(len: u64) -> u64 {
    const PAGE: u64 = 16 << 10;
    if len > PAGE { len.next_multiple_of(PAGE) } else { len.next_power_of_two().max(256) }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
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
        let mut state = self.shared.lock();
        state.settle(self.shared.cache_limit);
        let whole = match state.take_cached(class, storage) {
            Some(buffer) => buffer,
            None => {
                let buffer = self.shared.device.new_buffer(class, storage)?;
                state.stats.bytes_reserved += buffer.len();
                buffer
            }
        };
        let buffer = whole.slice(0..len.max(1))?;
        state.next_id += 1;
        let id = state.next_id;
        state.stats.total_acquired += 1;
        state.stats.bytes_in_use += len;
        state.stats.peak_bytes_in_use = state.stats.peak_bytes_in_use.max(state.stats.bytes_in_use);
        state.live.insert(id, Live { whole, asked: len, tag, since: Instant::now() });
        Ok(Allocation::new(buffer, id, self.shared.clone()))
    }

    fn stats(&self) -> PoolStats {
        self.shared.lock().stats.clone()
    }

    fn leaks(&self) -> Vec<Leak> {
        let state = self.shared.lock();
        let mut leaks: Vec<Leak> =
            state.live.values().map(|l| Leak { tag: l.tag, bytes: l.asked, age: l.since.elapsed() }).collect();
        leaks.sort_by_key(|l| std::cmp::Reverse(l.age));
        leaks
    }

    fn trim(&self) {
        let mut state = self.shared.lock();
        state.settle(self.shared.cache_limit);
        state.stats.bytes_reserved -= state.cached;
        state.cached = 0;
        state.free.clear();
    }
}

impl Reclaim for Shared {
    fn reclaim(&self, id: u64) {
        let mut state = self.lock();
        let Some(live) = state.live.remove(&id) else { return };
        state.stats.total_released += 1;
        state.stats.bytes_in_use -= live.asked;
        let points = self.frontier.pending();
        if points.is_empty() {
            state.keep(live.whole, self.cache_limit);
        } else {
            state.pending_free.push((points, live.whole));
        }
    }
}
