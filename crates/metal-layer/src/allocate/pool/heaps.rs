use crate::config::MemoryPoolConfig;
use crate::observe::stats::PoolStats;
use mlx_serving_device::{Buffer, Device, DeviceError, Heap, Result, Storage};
use offset_allocator::Allocator;
use slab::Slab;
use std::fmt;
use std::sync::Arc;

/// Heaps are divided into units of this many bytes.
pub(super) const UNIT: u64 = 256;
/// Ranges that one heap may be cut into, free ones included.
const MAX_RANGES: u32 = 16 << 10;
/// The least by which the weights' memory grows once what was expected has come.
const WEIGHTS_GROWTH: u64 = 16 << 20;

/// Heaps of a pool, and which parts of them are taken. Knows nothing of time: who frees a range says that nobody uses it.
pub(super) struct Heaps {
    entries: Slab<HeapEntry>,
    unified: bool,
    heap_bytes: u64,
    max_heap_bytes: u64,
    /// Weights that are still to come, bytes.
    expected_weights: u64,
}

/// A heap of the pool.
struct HeapEntry {
    heap: Arc<dyn Heap>,
    storage: Storage,
    role: Role,
    ranges: Allocator,
    /// Ranges taken.
    live: usize,
    /// Units taken.
    used: u64,
    /// True while the heap is taken as a whole.
    lent: bool,
}

/// Purpose of a heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Serves as one of the configured number.
    Working,
    /// Serves what is larger than a working heap; `kept` while idle if warm-up asked for it.
    Large { kept: bool },
    /// Serves weights, and is released with them.
    Weights,
}

/// A part of a heap.
pub(super) struct Range {
    /// Number of the heap's entry.
    heap: usize,
    node: offset_allocator::Allocation,
    units: u32,
}

impl fmt::Debug for Heaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|(_, s)| (s.role, s.storage, s.heap.len(), s.live))).finish()
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Range({} units at {} of heap {})", self.units, self.node.offset, self.heap)
    }
}

impl HeapEntry {
    fn new(heap: Arc<dyn Heap>, storage: Storage, role: Role) -> Self {
        let units = u32::try_from(heap.len() / UNIT).unwrap_or(u32::MAX);
        let ranges = Allocator::with_max_allocs(units, MAX_RANGES);
        Self { heap, storage, role, ranges, live: 0, used: 0, lent: false }
    }

    fn idle(&self) -> bool {
        self.live == 0 && !self.lent
    }

    /// Units that are free, and the largest free range: exact in an idle heap, up to an eighth too low in others.
    fn free(&self) -> (u64, u64) {
        let all = self.heap.len() / UNIT;
        match (self.lent, self.live) {
            (true, _) => (0, 0),
            (false, 0) => (all, all),
            _ => (all - self.used, u64::from(self.ranges.storage_report().largest_free_region)),
        }
    }
}

/// The smallest heap in which a range of `units` is sure to be found: the sub-allocator sorts free ranges by their four highest
/// bits.
pub(super) fn heap_units(units: u64) -> u64 {
    let step = 1 << (u64::BITS - units.leading_zeros()).saturating_sub(4);
    units.next_multiple_of(step)
}

/// Storage of the `i`-th working heap on a device without unified memory: the second is for what passes between host and device.
pub(super) fn working_storage(i: usize) -> Storage {
    if i == 1 { Storage::Shared } else { Storage::Private }
}

impl Heaps {
    /// Takes the configured heaps from the device: all of them, or where it refuses, at least `min_heaps`. On unified memory
    /// all are shared.
    pub(super) fn new(device: &dyn Device, config: &MemoryPoolConfig) -> Result<Self> {
        let mut heaps = Self {
            entries: Slab::new(),
            unified: device.info().unified_memory,
            heap_bytes: config.heap_size_mb << 20,
            max_heap_bytes: config.max_heap_size_mb << 20,
            expected_weights: 0,
        };
        for i in 0..config.num_heaps {
            let storage = heaps.storage(working_storage(i));
            match device.new_heap(heaps.heap_bytes, storage) {
                Ok(heap) => drop(heaps.entries.insert(HeapEntry::new(heap, storage, Role::Working))),
                Err(error) if i >= config.min_heaps => {
                    tracing::warn!(%error, heaps = i, wanted = config.num_heaps, "the memory pool starts with fewer heaps");
                    break;
                }
                Err(error) => return Err(explained(error, i, config)),
            }
        }
        Ok(heaps)
    }

    /// Storage of a request's memory: on unified memory the host reaches all of it.
    pub(super) fn storage(&self, asked: Storage) -> Storage {
        if self.unified { Storage::Shared } else { asked }
    }

    /// Bytes of one working heap.
    pub(super) fn heap_bytes(&self) -> u64 {
        self.heap_bytes
    }

    /// Notes that about `bytes` of weights are to come.
    pub(super) fn expect_weights(&mut self, bytes: u64) {
        self.expected_weights = bytes;
    }

    /// A range of at least `len` bytes in a heap of that role; `None` if there is none to be had. Weights, and what is larger
    /// than a working heap, may bring a new heap.
    pub(super) fn allocate(
        &mut self,
        device: &dyn Device,
        len: u64,
        storage: Storage,
        role: Role,
    ) -> Result<Option<(Buffer, Range)>> {
        let placement = device.placement(len);
        // Offsets are multiples of a unit; stricter alignment is found within the range.
        let bytes = placement.size + placement.align.saturating_sub(UNIT);
        let Ok(units) = u32::try_from(bytes.div_ceil(UNIT)) else { return Ok(None) };
        let storage = self.storage(storage);
        let weights = role == Role::Weights;
        let range = match self.find(units, storage, weights) {
            Some(range) => range,
            None => match self.grow(device, u64::from(units), storage, role) {
                Some(heap) => self.entries[heap].take(heap, units).ok_or_else(|| {
                    DeviceError::Contract(format!("a new heap has no room for the {bytes} bytes it was made for"))
                })?,
                None => return Ok(None),
            },
        };
        if weights {
            self.expected_weights = self.expected_weights.saturating_sub(u64::from(units) * UNIT);
        }
        let offset = (u64::from(range.node.offset) * UNIT).next_multiple_of(placement.align);
        match self.entries[range.heap].heap.place(offset, placement.size).and_then(|b| b.slice(0..len)) {
            Ok(buffer) => Ok(Some((buffer, range))),
            Err(error) => {
                self.free(range);
                Err(error)
            }
        }
    }

    fn find(&mut self, units: u32, storage: Storage, weights: bool) -> Option<Range> {
        self.entries
            .iter_mut()
            .filter(|(_, s)| s.storage == storage && (s.role == Role::Weights) == weights && !s.lent)
            .find_map(|(heap, s)| s.take(heap, units))
    }

    /// A new heap, where the role admits one that has room for `units` and the device gives it.
    fn grow(&mut self, device: &dyn Device, units: u64, storage: Storage, role: Role) -> Option<usize> {
        let need = heap_units(units) * UNIT;
        let (len, role) = match role {
            Role::Weights => (need.max(self.expected_weights.min(self.max_heap_bytes)).max(WEIGHTS_GROWTH), role),
            // A working heap that were empty would have had room.
            Role::Working if need <= self.heap_bytes => return None,
            Role::Working => (need, Role::Large { kept: false }),
            Role::Large { .. } => (need, role),
        };
        if need > self.max_heap_bytes {
            return None;
        }
        if role == (Role::Large { kept: false }) {
            self.drop_idle();
        }
        match device.new_heap(len.next_multiple_of(UNIT), storage) {
            Ok(heap) => Some(self.entries.insert(HeapEntry::new(heap, storage, role))),
            Err(error) => {
                tracing::debug!(%error, len, ?role, "the device refused a heap");
                None
            }
        }
    }

    /// Frees a range.
    pub(super) fn free(&mut self, range: Range) {
        let entry = &mut self.entries[range.heap];
        entry.ranges.free(range.node);
        entry.live -= 1;
        entry.used -= u64::from(range.units);
        if entry.live == 0 && entry.role == Role::Weights {
            self.entries.remove(range.heap);
        }
    }

    /// Makes the system back a range with memory.
    pub(super) fn touch(&self, range: &Range) -> Result<()> {
        let start = u64::from(range.node.offset) * UNIT;
        self.entries[range.heap].heap.touch(start..start + u64::from(range.units) * UNIT)
    }

    /// Takes an idle working heap as a whole; a private one where the device tells them apart.
    pub(super) fn lend(&mut self) -> Option<(usize, Arc<dyn Heap>)> {
        let storage = self.storage(Storage::Private);
        let idle = |s: &HeapEntry| s.role == Role::Working && s.storage == storage && s.idle();
        let (heap, s) = self.entries.iter_mut().find(|(_, s)| idle(s))?;
        s.lent = true;
        Some((heap, s.heap.clone()))
    }

    /// Takes a heap back that was lent.
    pub(super) fn unlend(&mut self, heap: usize) {
        self.entries[heap].lent = false;
    }

    /// Releases large heaps that nobody uses to the device, but for those that warm-up made.
    pub(super) fn drop_idle(&mut self) {
        self.entries.retain(|_, s| !(s.role == Role::Large { kept: false } && s.idle()));
    }

    /// Fills in what the heaps know.
    pub(super) fn report(&self, stats: &mut PoolStats) {
        let (mut bytes, mut free, mut largest) = (0, 0, 0);
        for (_, entry) in &self.entries {
            stats.bytes_reserved += entry.heap.len();
            if entry.role == Role::Weights {
                continue;
            }
            if entry.role == Role::Working {
                stats.pool_size += 1;
                stats.available_count += usize::from(entry.idle());
            }
            bytes += entry.heap.len() / UNIT;
            let (entry_free, entry_largest) = entry.free();
            free += entry_free;
            largest += entry_largest;
        }
        stats.utilization = if bytes > 0 { 1.0 - free as f64 / bytes as f64 } else { 0.0 };
        stats.fragmentation = if free > 0 { 1.0 - largest as f64 / free as f64 } else { 0.0 };
    }
}

impl HeapEntry {
    fn take(&mut self, heap: usize, units: u32) -> Option<Range> {
        let node = self.ranges.allocate(units)?;
        self.live += 1;
        self.used += u64::from(units);
        Some(Range { heap, node, units })
    }
}

/// Says in a refusal what the pool needed.
fn explained(error: DeviceError, got: usize, config: &MemoryPoolConfig) -> DeviceError {
    match error {
        DeviceError::OutOfMemory { requested, detail, .. } => DeviceError::OutOfMemory {
            requested,
            what: "the memory pool",
            detail: format!(
                "{detail}; {got} of {} heaps were given and min_heaps is {}: lower memory_pool.heap_size_mb",
                config.num_heaps, config.min_heaps
            ),
        },
        other => other,
    }
}
