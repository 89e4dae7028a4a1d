/// Reason for which the engine refused or lost a request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The request cannot be served as it is: the client must change it.
    #[error("{message}")]
    Invalid {
        /// The parameter at fault.
        param: &'static str,
        /// The fault and what would do.
        message: String,
    },
    /// More tokens than the context holds.
    #[error("{message}")]
    ContextLength {
        /// The parameter at fault.
        param: &'static str,
        /// The numbers and what bounds them.
        message: String,
    },
    /// Too many requests run or wait already.
    #[error(
        "{live} requests run or wait already, of {limit} that may (engine.max_sequences and engine.max_waiting): too few places are \
         left for {asked} more; try again later"
    )]
    Overloaded {
        /// Requests that run or wait.
        live: usize,
        /// Requests that may run or wait.
        limit: usize,
        /// Requests that were asked for beside them.
        asked: usize,
    },
    /// The engine is going down or gone.
    #[error("the engine is not running: {0}")]
    Stopped(String),
    /// The engine could not be started.
    #[error("{0}")]
    Unstarted(String),
    /// The device failed while this request was computed.
    #[error("computing the answer failed: {0}")]
    Device(String),
    /// The request's grammar cannot be followed, or not in time: the client must change it.
    #[error("following the request's grammar failed: {0}")]
    Grammar(String),
    /// The engine failed at following the request's grammar.
    #[error("following the request's grammar failed: {0}")]
    Masks(String),
    /// The client read too slowly, and the answer was abandoned.
    #[error("the client reads too slowly: {0}")]
    Slow(String),
}

impl EngineError {
    /// A request with a parameter that does not do.
    pub fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        EngineError::Invalid { param, message: message.into() }
    }
}

impl From<mlx_serving_device::DeviceError> for EngineError {
    fn from(error: mlx_serving_device::DeviceError) -> Self {
        EngineError::Device(error.to_string())
    }
}
