use std::path::PathBuf;

/// Reason for which a run does not begin, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SoakError {
    /// A setting that does not do.
    #[error("{0}")]
    Setting(String),
    /// A record that cannot be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// It was asked to stop before there was traffic.
    #[error("stopped before the first request of the run")]
    Stopped,
    /// The model cannot be opened, asked or released as it has to be.
    #[error("{0}")]
    Subject(String),
}
