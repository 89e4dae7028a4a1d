use mlx_serving_device::DeviceError;

/// Failure to build a layer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MetalLayerError {
    /// An optimization that is on did not start, and may not fall back.
    #[error(
        "the optimization {name} could not start: {source}; leave it out of --metal-opts, or set metal_optimizations.graceful_fallback to go on without it"
    )]
    Optimization {
        /// Name of the optimization.
        name: &'static str,
        /// Reason.
        source: DeviceError,
    },
    /// The device refused what every layer needs.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
