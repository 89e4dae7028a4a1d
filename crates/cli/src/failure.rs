use mlx_serving_bench::BenchError;
use mlx_serving_runtime::{RegistryError, RuntimeError};
use std::fmt;
use std::process::ExitCode;

/// Failure of a command, with its exit code.
#[derive(Debug)]
pub enum Failure {
    /// It failed: exit code 1.
    Failed(String),
    /// Wrong usage or configuration: exit code 2.
    Usage(String),
    /// Throughput was lost beyond the limit that was given: exit code 3.
    Regressed(String),
    /// The reader of standard output has gone; nobody is left to be told.
    Silent,
    /// The user left with Ctrl-C: exit code 130, which a shell has for a process that SIGINT ended.
    Interrupted,
}

impl Failure {
    /// Exit code 1.
    pub fn failed(message: impl fmt::Display) -> Self {
        Failure::Failed(message.to_string())
    }

    /// Exit code 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Failure::Usage(message.to_string())
    }

    /// Standard output could not be written.
    pub fn output(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::Silent,
            _ => Failure::Failed(format!("standard output: {error}")),
        }
    }

    /// The process's exit code.
    pub fn code(&self) -> ExitCode {
        match self {
            Failure::Failed(_) => ExitCode::from(1),
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Regressed(_) => ExitCode::from(3),
            Failure::Silent => ExitCode::SUCCESS,
            Failure::Interrupted => ExitCode::from(130),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Failed(message) | Failure::Usage(message) | Failure::Regressed(message) => f.write_str(message),
            Failure::Silent | Failure::Interrupted => Ok(()),
        }
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        if error.is_usage() { Failure::usage(error) } else { Failure::failed(error) }
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Setting { name, reason } => Failure::usage(format!("--{}: {reason}", name.replace('_', "-"))),
            BenchError::Runtime(error) => error.into(),
            error => Failure::failed(error),
        }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Open(error) => error.into(),
            error => Failure::failed(error),
        }
    }
}
