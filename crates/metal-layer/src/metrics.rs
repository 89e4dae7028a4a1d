use crate::stats::{BlitStats, LayerStats, PoolStats, RingStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt;

/// Seconds: from a free list's nanoseconds to a device allocation.
const ACQUIRE_S: [f64; 12] = [2e-7, 5e-7, 1e-6, 2e-6, 5e-6, 1e-5, 5e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0];
/// Seconds: from a KV block to the weights of a layer read from a slow disk.
const TRANSFER_S: [f64; 13] = [1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// Seconds: up to the longest `max_wait_ms`.
const WAIT_S: [f64; 13] = [1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 1.0, 10.0];

/// Durations that the optimisations record. Clones share their counts.
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
    /// Registers the metrics of the optimisations that `stats` has counters of, and the device's.
    pub fn register(&self, stats: LayerStats, registry: &mut Registry) {
        if stats.memory_pool.counters().is_some() {
            let help = "Time of an allocation";
            registry.register("metal_pool_acquire_duration_seconds", help, self.pool_acquire.clone());
        }
        if stats.blit_queue.counters().is_some() {
            let help = "Time of an upload";
            registry.register("blit_upload_duration_seconds", help, self.blit_upload.clone());
            let help = "Time of a download";
            registry.register("blit_download_duration_seconds", help, self.blit_download.clone());
        }
        if stats.command_buffer_ring.counters().is_some() {
            let help = "Time that the host waited for a slot";
            registry.register("command_ring_wait_seconds", help, self.ring_wait.clone());
        }
        registry.register_collector(Box::new(Counters(stats)));
    }
}

/// The counters as of one moment.
#[derive(Debug)]
struct Counters(LayerStats);

impl Collector for Counters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let e = &mut encoder;
        if let Some(stats) = self.0.memory_pool.counters() {
            pool(e, stats)?;
        }
        if let Some(stats) = self.0.blit_queue.counters() {
            blit(e, stats)?;
        }
        if let Some(stats) = self.0.command_buffer_ring.counters() {
            ring(e, stats)?;
        }
        gauge(e, "metal_device_utilization", "Share of the last seconds in which ops ran", self.0.device.utilization)
    }
}

fn pool(e: &mut DescriptorEncoder<'_>, s: &PoolStats) -> fmt::Result {
    counter(e, "metal_pool_acquired", "Allocations handed out", s.total_acquired)?;
    counter(e, "metal_pool_released", "Allocations let go", s.total_released)?;
    counter(e, "metal_pool_exhaustion", "Times that the heaps ran out", s.exhaustion_events)?;
    counter(e, "metal_pool_fallback", "Allocations served by a dedicated buffer", s.fallback_events)?;
    gauge(e, "metal_pool_available", "Heaps without live allocations", s.available_count as f64)?;
    gauge(e, "metal_pool_utilization", "Share of the heaps' bytes in use", s.utilization)
}

fn blit(e: &mut DescriptorEncoder<'_>, s: &BlitStats) -> fmt::Result {
    gauge(e, "blit_pending_operations", "Transfers under way", s.pending_operations as f64)?;
    gauge(e, "blit_overlap_ratio", "Share of the transfers' time during which ops ran", s.overlap_ratio)
}

fn ring(e: &mut DescriptorEncoder<'_>, s: &RingStats) -> fmt::Result {
    counter(e, "command_ring_acquired", "Slots handed out", s.total_acquired)?;
    counter(e, "command_ring_submitted", "Slots submitted", s.total_submitted)?;
    counter(e, "command_ring_timeouts", "Waits for a slot that took too long", s.timeout_events)?;
    gauge(e, "command_ring_available", "Slots that are free", s.available_count as f64)
}

fn counter(e: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(e.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(e: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let metric = ConstGauge::new(value);
    metric.encode(e.encode_descriptor(name, help, None, metric.metric_type())?)
}
