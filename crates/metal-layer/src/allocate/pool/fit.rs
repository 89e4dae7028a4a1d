use super::heaps::{UNIT, heap_units, working_storage};
use crate::config::MemoryPoolConfig;
use mlx_serving_device::{DeviceInfo, Storage};
use offset_allocator::Allocator;

const MIB: u64 = 1 << 20;

/// Memory that an engine holds while it runs, weights excepted.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkingSet {
    /// Layers of the KV cache.
    pub kv_layers: usize,
    /// Bytes of each.
    pub kv_layer_bytes: u64,
    /// Activations, logits and the like: bytes of each, and where they lie.
    pub others: Vec<(u64, Storage)>,
}

impl WorkingSet {
    /// Bytes of the KV cache, and of all else.
    pub fn bytes(&self) -> (u64, u64) {
        let others = self.others.iter().map(|(bytes, _)| bytes).sum();
        (self.kv_layer_bytes.saturating_mul(self.kv_layers as u64), others)
    }

    /// Buffers of the set, in the order in which an engine takes them: bytes and storage of each.
    fn buffers(&self) -> impl Iterator<Item = (u64, Storage)> + '_ {
        std::iter::repeat_n((self.kv_layer_bytes, Storage::Private), self.kv_layers).chain(self.others.iter().copied())
    }
}

impl MemoryPoolConfig {
    /// Reason for which a working set and these heaps do not fit each other on such a device, and the key to change; `None` if they
    /// do.
    pub fn fits(&self, device: &DeviceInfo, set: &WorkingSet) -> Option<String> {
        let reserved = self.heap_size_mb * self.num_heaps as u64;
        if reserved * MIB > device.memory_budget {
            return Some(format!(
                "the heaps of memory_pool take {reserved} MiB, but the device has {}: lower heap_size_mb or num_heaps",
                device.memory_budget / MIB
            ));
        }
        let outside = self.place(device, set).dedicated;
        if outside == 0 {
            return None;
        }
        let bytes: u64 = set.buffers().map(|(bytes, _)| bytes).sum();
        let more_heaps = (self.num_heaps + 1..=16).map(|num_heaps| Self { num_heaps, ..self.clone() });
        let larger = (1..=5).map(|doublings| Self { heap_size_mb: self.heap_size_mb << doublings, ..self.clone() });
        let remedy = more_heaps
            .chain(larger)
            .filter(|c| c.heap_size_mb <= c.max_heap_size_mb.min(2048))
            .filter(|c| c.heap_size_mb * c.num_heaps as u64 * MIB <= device.memory_budget)
            .find(|c| c.place(device, set).dedicated == 0);
        let remedy = match remedy {
            Some(c) if c.num_heaps > self.num_heaps => format!("raise memory_pool.num_heaps to {}", c.num_heaps),
            Some(c) => format!("raise memory_pool.heap_size_mb to {}", c.heap_size_mb),
            None => "lower engine.kv_cache_tokens".into(),
        };
        Some(format!(
            "the KV cache ({} layers of {} MiB) and the activations, {} MiB together, do not fit the {} heaps of {} MiB of \
             memory_pool: {outside} buffers would be dedicated; {remedy}",
            set.kv_layers,
            set.kv_layer_bytes.div_ceil(MIB),
            bytes.div_ceil(MIB),
            self.num_heaps,
            self.heap_size_mb,
        ))
    }

    /// Bytes that the heaps take, and a working set beside them, weights excepted.
    pub fn bytes(&self, device: &DeviceInfo, set: &WorkingSet) -> u64 {
        let warm = self.warmup_buffer_sizes_mb.iter().filter(|&&mb| mb > self.heap_size_mb);
        let heaps = self.heap_size_mb * self.num_heaps as u64 + warm.sum::<u64>();
        (heaps * MIB).saturating_add(self.place(device, set).outside_bytes)
    }

    /// Placement of the buffers: what the heaps' sub-allocators say when they are asked in the same order.
    fn place(&self, device: &DeviceInfo, set: &WorkingSet) -> Placed {
        let asked = |storage| if device.unified_memory { Storage::Shared } else { storage };
        let working = (0..self.num_heaps).map(|i| (working_storage(i), self.heap_size_mb));
        let warm = self.warmup_buffer_sizes_mb.iter().filter(|&&mb| mb > self.heap_size_mb);
        let mut heaps: Vec<(Storage, Allocator)> = working
            .chain(warm.map(|&mb| (Storage::Private, mb)))
            .map(|(storage, mb)| (asked(storage), Allocator::with_max_allocs((mb * MIB / UNIT) as u32, 1024)))
            .collect();
        let mut placed = Placed::default();
        for (bytes, storage) in set.buffers() {
            let units = bytes.div_ceil(UNIT);
            let mut room = |units| heaps.iter_mut().any(|(s, h)| *s == asked(storage) && h.allocate(units).is_some());
            if u32::try_from(units).is_ok_and(&mut room) {
                continue;
            }
            // Larger than a heap: it gets its own.
            let own = heap_units(units) * UNIT;
            if own > self.heap_size_mb * MIB && own <= self.max_heap_size_mb * MIB {
                placed.outside_bytes = placed.outside_bytes.saturating_add(own);
            } else {
                placed.dedicated += 1;
                placed.outside_bytes = placed.outside_bytes.saturating_add(bytes);
            }
        }
        placed
    }
}

/// Buffers that the heaps have no room for.
#[derive(Debug, Default)]
struct Placed {
    /// Buffers that would get dedicated memory.
    dedicated: usize,
    /// Bytes of dedicated memory, and of heaps made for single buffers.
    outside_bytes: u64,
}

#[cfg(all(test, not(feature = "loom")))]
mod tests;
