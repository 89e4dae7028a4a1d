use mlx_serving_checkpoint::CheckpointError;
use mlx_serving_device::DeviceError;

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The files.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The weights alone exceed the device's memory.
    #[error(
        "the weights need {needed} bytes, but this device has a budget of {budget}; choose a model with fewer parameters or bits"
    )]
    TooLarge {
        /// Bytes of the weights in the device's layout.
        needed: u64,
        /// The device's budget.
        budget: u64,
    },
    /// A transfer of weights failed.
    #[error("loading {module} failed: {source}")]
    Upload {
        /// Which weights.
        module: String,
        /// Why.
        source: DeviceError,
    },
}
