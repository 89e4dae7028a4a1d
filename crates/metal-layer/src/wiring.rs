use crate::config::{FallbackPolicy, MetalOptimizations};
use crate::frontier::Frontier;
use crate::observe::intervals::Intervals;
use crate::observe::metrics::LayerMetrics;
use mlx_serving_device::Device;
use std::sync::Arc;

/// Common parts of one layer, with which each implementation is made.
#[derive(Debug, Clone)]
pub struct Wiring {
    /// Device that gives memory and takes submissions.
    pub device: Arc<dyn Device>,
    /// Submissions so far, for which released memory waits.
    pub frontier: Frontier,
    /// Treatment of an optimization that fails.
    pub policy: FallbackPolicy,
    /// Durations that the optimizations record.
    pub metrics: LayerMetrics,
    /// Times of the last steps and copies.
    pub intervals: Intervals,
}

impl Wiring {
    /// A wiring in which nothing has been submitted or recorded, with the policy of the default configuration.
    pub fn new(device: Arc<dyn Device>) -> Self {
        let policy = MetalOptimizations::default().fallback_policy();
        let (metrics, intervals) = (LayerMetrics::default(), Intervals::default());
        Self { device, frontier: Frontier::default(), policy, metrics, intervals }
    }
}
