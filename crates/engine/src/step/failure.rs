use mlx_serving_device::DeviceError;

/// Failure to submit a step.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub error: DeviceError,
    /// The sequence that alone asked for what was refused.
    pub sequence: Option<u64>,
}

/// Failure of a submitted step, which then has no tokens.
#[derive(Debug)]
pub(crate) struct Failure {
    pub error: DeviceError,
    /// Spilled blocks could not be restored for it.
    pub spill: bool,
}

impl From<DeviceError> for Refusal {
    fn from(error: DeviceError) -> Self {
        Self { error, sequence: None }
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Self { error, spill: false }
    }
}
