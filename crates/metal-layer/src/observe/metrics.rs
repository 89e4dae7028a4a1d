use crate::observe::stats::{BlitStats, LayerStats, PoolStats, RingStats};
use mlx_serving_metrics::{Histogram, Labeled};

/// Seconds: from a free list's nanoseconds to a device allocation.
const ACQUIRE_S: [f64; 12] = [2e-7, 5e-7, 1e-6, 2e-6, 5e-6, 1e-5, 5e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0];
/// Seconds: from a KV block to the weights of a layer read from a slow disk.
const TRANSFER_S: [f64; 13] = [1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// Seconds: up to the longest `max_wait_ms`.
const WAIT_S: [f64; 13] = [1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 1.0, 10.0];

/// Durations that the optimizations record. Clones share their counts.
#[derive(Debug, Clone)]
pub struct LayerMetrics {
    /// Seconds that an allocation took.
    pub pool_acquire: Histogram,
    /// Seconds from an upload's start to its end.
    pub blit_upload: Histogram,
    /// Seconds from a download's start to its end.
    pub blit_download: Histogram,
    /// Seconds that the host waited for a slot.
    pub ring_wait: Histogram,
}

impl Default for LayerMetrics {
    fn default() -> Self {
        Self {
            pool_acquire: Histogram::new(ACQUIRE_S),
            blit_upload: Histogram::new(TRANSFER_S),
            blit_download: Histogram::new(TRANSFER_S),
            ring_wait: Histogram::new(WAIT_S),
        }
    }
}

impl LayerMetrics {
    /// Adds the metrics of the optimizations that `stats` has counters of, and the device's.
    pub fn tell(&self, stats: &LayerStats, to: &mut Labeled<'_>) {
        if let Some(stats) = stats.memory_pool.counters() {
            pool(to, stats);
            to.histogram("metal_pool_acquire_duration_seconds", "Time of an allocation.", &self.pool_acquire);
        }
        if let Some(stats) = stats.blit_queue.counters() {
            blit(to, stats);
            to.histogram("blit_upload_duration_seconds", "Time of an upload.", &self.blit_upload);
            to.histogram("blit_download_duration_seconds", "Time of a download.", &self.blit_download);
        }
        if let Some(stats) = stats.command_buffer_ring.counters() {
            ring(to, stats);
            to.histogram("command_ring_wait_seconds", "Time that the host waited for a slot.", &self.ring_wait);
        }
        let help = "Share of the last seconds in which ops ran, 0 to 1.";
        to.gauge("metal_device_utilization", help, stats.device.utilization);
    }
}

fn pool(to: &mut Labeled<'_>, s: &PoolStats) {
    to.counter("metal_pool_acquired", "Allocations handed out.", s.total_acquired);
    to.counter("metal_pool_released", "Allocations released.", s.total_released);
    to.counter("metal_pool_exhaustion", "Times that the heaps ran out.", s.exhaustion_events);
    to.counter("metal_pool_fallback", "Allocations served by a dedicated buffer.", s.fallback_events);
    to.gauge("metal_pool_available", "Heaps without live allocations.", s.available_count);
    to.gauge("metal_pool_utilization", "Share of the heaps' bytes in use, 0 to 1.", s.utilization);
    to.gauge("metal_pool_reserved_bytes", "Bytes taken from the device.", s.bytes_reserved);
    to.gauge("metal_pool_in_use_bytes", "Bytes of live allocations.", s.bytes_in_use);
    to.gauge("metal_pool_peak_in_use_bytes", "The most bytes of live allocations so far.", s.peak_bytes_in_use);
}

fn blit(to: &mut Labeled<'_>, s: &BlitStats) {
    to.counter("blit_uploaded_bytes", "Bytes of uploads that have ended.", s.bytes_uploaded);
    to.counter("blit_downloaded_bytes", "Bytes of downloads that have ended.", s.bytes_downloaded);
    to.counter("blit_checksum_failures", "Copies whose checksum disagreed.", s.checksum_failures);
    to.counter("blit_fallback", "Transfers that were made synchronously instead.", s.fallback_events);
    to.gauge("blit_pending_operations", "Transfers in flight.", s.pending_operations);
    to.gauge("blit_overlap_ratio", "Share of the transfers' time during which ops ran, 0 to 1.", s.overlap_ratio);
}

fn ring(to: &mut Labeled<'_>, s: &RingStats) {
    to.counter("command_ring_acquired", "Slots handed out.", s.total_acquired);
    to.counter("command_ring_submitted", "Slots submitted.", s.total_submitted);
    to.counter("command_ring_timeouts", "Waits for a slot that took too long.", s.timeout_events);
    to.gauge("command_ring_available", "Slots that are free.", s.available_count);
}
