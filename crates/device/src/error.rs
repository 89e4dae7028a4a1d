use std::time::Duration;

/// Report of a device that cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The device has no memory for an allocation.
    #[error(
        "out of device memory: {requested} bytes for {what} were refused ({detail}); lower the KV cache or choose a smaller model"
    )]
    OutOfMemory {
        /// Bytes asked for.
        requested: u64,
        /// Purpose of the allocation.
        what: &'static str,
        /// The backend's own words.
        detail: String,
    },
    /// The device is lost; every object made from it is useless.
    #[error("device lost: {0}; the engine must be loaded again")]
    Lost(String),
    /// A command buffer ended in error.
    #[error("command buffer failed: {0}")]
    CommandFailed(String),
    /// A timeline did not reach a value in time.
    #[error("timeline did not reach {value} within {waited:?} (it is at {reached})")]
    Timeout {
        /// The value waited for.
        value: u64,
        /// The value at the end of the wait.
        reached: u64,
        /// Time that the wait lasted.
        waited: Duration,
    },
    /// The device cannot do this at all.
    #[error("not supported by this device: {0}")]
    Unsupported(String),
    /// The caller broke the contract: a defect of this program, never of its input.
    #[error("contract broken: {0}")]
    Contract(String),
}

/// Results of the device contract.
pub type Result<T, E = DeviceError> = std::result::Result<T, E>;
