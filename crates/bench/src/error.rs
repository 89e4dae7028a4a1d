use mlx_serving_engine::EngineError;
use mlx_serving_runtime::RuntimeError;

/// Failure of a benchmark.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A setting that cannot be, or not with this model.
    #[error("{name}: {reason}")]
    Setting {
        /// The setting's key.
        name: &'static str,
        /// Value found, and values that it takes.
        reason: String,
    },
    /// The model could not be opened.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A request was refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine ended without finishing an answer.
    #[error("the engine ended without finishing the answer")]
    Unfinished,
    /// A server did not say what must be known before it is asked.
    #[error("{0}")]
    Server(String),
    /// The threads that ask could not be started.
    #[error("a thread for a request cannot be started: {0}; ask fewer at a time")]
    Thread(#[source] std::io::Error),
    /// A result that cannot be written as text.
    #[error("the result cannot be written: {0}")]
    Text(#[from] serde_json::Error),
}

impl BenchError {
    pub(crate) fn setting(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Setting { name, reason: reason.into() }
    }
}

/// Refuses a setting that is 0 or above `most`.
pub(crate) fn check_range(name: &'static str, value: usize, most: usize) -> Result<(), BenchError> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(BenchError::setting(name, format!("{value} is out of range; it takes 1 to {most}")))
}
