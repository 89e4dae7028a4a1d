use mlx_serving_checkpoint::CheckpointError;
use std::io;
use std::path::{Path, PathBuf};

/// Reason for which a checkpoint was not converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The source cannot be read, or is not what its configuration says.
    #[error(transparent)]
    Source(#[from] CheckpointError),
    /// The plan does not fit the model.
    #[error("{0}")]
    Plan(String),
    /// A module that is quantized already.
    #[error("{module} has scales, so it is quantized already; convert the checkpoint that it was made of")]
    Quantized {
        /// The module.
        module: String,
    },
    /// A weight that no code stands for.
    #[error("{module} has a weight that is not finite; the checkpoint may be damaged")]
    NotFinite {
        /// The module.
        module: String,
    },
    /// The folder is in use for something else.
    #[error("{path}: {message}")]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// Contents that it has, and the remedy.
        message: String,
    },
    /// A file of the source that belongs to no checkpoint.
    #[error("{path}: {source}; check the file and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{path}: {source}; what is written so far is kept, and the same command goes on with it")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A file that was written reads back otherwise.
    #[error("{path}: {tensor} reads back otherwise than it was written; the disk or the memory may be faulty")]
    Differs {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
}

impl ConvertError {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }
}
