//! The section `metal_optimizations` of `config/runtime.yaml`.

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Settings of the three optimizations, with the master switch. Everything is off by default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetalOptimizations {
    /// Master switch.
    #[garde(skip)]
    pub enabled: bool,
    /// Memory pool: heaps and sub-allocation.
    #[garde(dive)]
    #[serde(deserialize_with = "section")]
    pub memory_pool: MemoryPoolConfig,
    /// Blit queue: asynchronous copies.
    #[garde(dive)]
    #[serde(deserialize_with = "section")]
    pub blit_queue: BlitQueueConfig,
    /// Command-buffer ring: steps encoded ahead.
    #[garde(dive)]
    #[serde(deserialize_with = "section")]
    pub command_buffer_ring: CommandBufferRingConfig,
    /// Replace a failing optimization by its baseline; otherwise the start or the request fails.
    #[garde(skip)]
    pub graceful_fallback: bool,
    /// Log when a baseline takes over.
    #[garde(skip)]
    pub log_fallbacks: bool,
    /// Put the optimizations' metrics on `/metrics`.
    #[garde(skip)]
    pub expose_metrics: bool,
}

/// Reads a section. One whose keys are all commented out is null, and empty.
///
/// # Errors
/// Those of its keys.
pub fn section<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Default for MetalOptimizations {
    fn default() -> Self {
        Self {
            enabled: false,
            memory_pool: MemoryPoolConfig::default(),
            blit_queue: BlitQueueConfig::default(),
            command_buffer_ring: CommandBufferRingConfig::default(),
            graceful_fallback: true,
            log_fallbacks: true,
            expose_metrics: true,
        }
    }
}

/// Treatment of an optimization that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FallbackPolicy {
    /// True if the baseline takes over; otherwise the failure is reported to whoever asked.
    pub graceful: bool,
    /// True if a line is logged.
    pub log: bool,
}

/// Section `memory_pool`: heaps from which buffers are sub-allocated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryPoolConfig {
    /// Switch of the memory pool.
    #[garde(skip)]
    pub enabled: bool,
    /// Size of a heap, MiB.
    #[garde(range(min = 64, max = 2048))]
    pub heap_size_mb: u64,
    /// Number of heaps.
    #[garde(range(min = 2, max = 16))]
    pub num_heaps: usize,
    /// Sizes that are touched before the first request, MiB.
    #[garde(inner(range(min = 1, max = 1024)))]
    pub warmup_buffer_sizes_mb: Vec<u64>,
    /// Keep counters.
    #[garde(skip)]
    pub track_statistics: bool,
    /// Log when the heaps run out.
    #[garde(skip)]
    pub log_pool_exhaustion: bool,
    /// Size of the largest heap, MiB.
    #[garde(range(min = 256, max = 4096))]
    pub max_heap_size_mb: u64,
    /// Fewest heaps with which the pool starts; above that, heaps that the device refuses are done without.
    #[garde(range(min = 1, max = 8))]
    pub min_heaps: usize,
}

impl Default for MemoryPoolConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            heap_size_mb: 256,
            num_heaps: 4,
            warmup_buffer_sizes_mb: vec![32, 128, 512],
            track_statistics: true,
            log_pool_exhaustion: true,
            max_heap_size_mb: 2048,
            min_heaps: 2,
        }
    }
}

impl MemoryPoolConfig {
    /// Rules between keys; the rest is in the ranges. The message names keys and values.
    pub fn check_across(&self) -> Result<(), String> {
        const SECTION: &str = "metal_optimizations.memory_pool";
        if self.heap_size_mb > self.max_heap_size_mb {
            return Err(format!(
                "{SECTION}.heap_size_mb is {}, above max_heap_size_mb, which is {}",
                self.heap_size_mb, self.max_heap_size_mb
            ));
        }
        if self.num_heaps < self.min_heaps {
            return Err(format!(
                "{SECTION}.num_heaps is {}, below min_heaps, which is {}",
                self.num_heaps, self.min_heaps
            ));
        }
        match self.warmup_buffer_sizes_mb.iter().find(|&&size| size > self.max_heap_size_mb) {
            Some(size) => Err(format!(
                "{SECTION}.warmup_buffer_sizes_mb has {size}, above max_heap_size_mb, which is {}",
                self.max_heap_size_mb
            )),
            None => Ok(()),
        }
    }
}

/// Section `blit_queue`: asynchronous copies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BlitQueueConfig {
    /// Switch of the blit queue.
    #[garde(skip)]
    pub enabled: bool,
    /// Copies in flight at most.
    #[garde(range(min = 1, max = 100))]
    pub max_pending_ops: usize,
    /// Longest time of a copy, ms; one that takes longer has failed.
    #[garde(range(min = 100, max = 30_000))]
    pub timeout_ms: u64,
    /// Staging memory, MiB.
    #[garde(range(min = 1, max = 1024))]
    pub staging_buffer_size_mb: u64,
    /// Make compute wait for copies on the device, instead of on the host.
    #[garde(skip)]
    pub use_shared_events: bool,
    /// Compare checksums of both ends.
    #[garde(skip)]
    pub verify_checksums: bool,
    /// Keep counters.
    #[garde(skip)]
    pub track_metrics: bool,
}

impl Default for BlitQueueConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            max_pending_ops: 10,
            timeout_ms: 5000,
            staging_buffer_size_mb: 64,
            use_shared_events: true,
            verify_checksums: false,
            track_metrics: true,
        }
    }
}

/// Section `command_buffer_ring`: steps encoded while others run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CommandBufferRingConfig {
    /// Switch of the command-buffer ring.
    #[garde(skip)]
    pub enabled: bool,
    /// Slots in flight.
    #[garde(range(min = 2, max = 8))]
    pub ring_size: usize,
    /// Longest wait for a slot, ms; after that the ring falls back to one slot in flight.
    #[garde(range(min = 100, max = 10_000))]
    pub max_wait_ms: u64,
    /// Keep counters.
    #[garde(skip)]
    pub track_statistics: bool,
    /// Log every wait.
    #[garde(skip)]
    pub log_wait_events: bool,
}

impl Default for CommandBufferRingConfig {
    fn default() -> Self {
        Self { enabled: false, ring_size: 3, max_wait_ms: 1000, track_statistics: true, log_wait_events: false }
    }
}

/// The optimizations' names in lists.
const NAMES: [&str; 3] = ["memory_pool", "blit_queue", "command_buffer_ring"];

impl MetalOptimizations {
    /// Rules between keys; the rest is in the ranges. The message names keys and values.
    pub fn check_across(&self) -> Result<(), String> {
        self.memory_pool.check_across()
    }

    /// Treatment of an optimization that fails.
    pub fn fallback_policy(&self) -> FallbackPolicy {
        FallbackPolicy { graceful: self.graceful_fallback, log: self.log_fallbacks }
    }

    /// Switches on exactly what a list names: `none`, `all`, or names separated by commas.
    pub fn select(&mut self, list: &str) -> Result<(), String> {
        let names: Vec<&str> = match list.trim() {
            "none" => Vec::new(),
            "all" => NAMES.to_vec(),
            names => names.split(',').map(str::trim).collect(),
        };
        if let Some(unknown) = names.iter().find(|n| !NAMES.contains(n)) {
            return Err(format!("{unknown:?} is not an optimization; give none, all, or some of {}", NAMES.join(",")));
        }
        self.enabled = !names.is_empty();
        self.memory_pool.enabled = names.contains(&NAMES[0]);
        self.blit_queue.enabled = names.contains(&NAMES[1]);
        self.command_buffer_ring.enabled = names.contains(&NAMES[2]);
        Ok(())
    }

    /// The names of those that are on.
    pub fn active(&self) -> Vec<&'static str> {
        if self.enabled { self.switched() } else { Vec::new() }
    }

    /// The names of those whose switch is on and has no effect, because the master switch is off.
    pub fn closed(&self) -> Vec<&'static str> {
        if self.enabled { Vec::new() } else { self.switched() }
    }

    fn switched(&self) -> Vec<&'static str> {
        let switches = [self.memory_pool.enabled, self.blit_queue.enabled, self.command_buffer_ring.enabled];
        NAMES.into_iter().zip(switches).filter(|(_, on)| *on).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests;
