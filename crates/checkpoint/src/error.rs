use std::path::{Path, PathBuf};

/// Fault of a checkpoint that cannot be used. Every message names the file, what was expected and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file is missing or cannot be read.
    #[error("{path}: {source}; {hint}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
        /// A remedy.
        hint: &'static str,
    },
    /// A path that is to be read as a file and is none.
    #[error("{path} is a {kind}, and models are read from plain files; put the file itself there")]
    Special {
        /// Path that was named.
        path: PathBuf,
        /// A word for its type.
        kind: &'static str,
    },
    /// A file was written to while it was read.
    #[error(
        "{path} changed while it was read ({opened} bytes when it was opened, {now} now); load the model again once nothing writes to it"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Bytes when it was opened.
        opened: u64,
        /// Bytes when it was found changed.
        now: u64,
    },
    /// A JSON file does not parse or does not have the form it must have.
    #[error("{path}: {message}; download the model again or mend the file")]
    Json {
        /// The file.
        path: PathBuf,
        /// The fault, with its place.
        message: String,
    },
    /// A key of a configuration file has a value that is not accepted.
    #[error("{path}: {key} is {found}, expected {expected}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Dotted key.
        key: String,
        /// Value of the key.
        found: String,
        /// Values that are accepted.
        expected: String,
    },
    /// A safetensors file breaks its format.
    #[error("{path}: not a valid safetensors file: {message}; download it again")]
    Format {
        /// The file.
        path: PathBuf,
        /// The fault.
        message: String,
    },
    /// A folder without weights.
    #[error(
        "{path}: no model*.safetensors{index}; name a folder with config.json and safetensors files, or pull the model"
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// The index's fault in parentheses, if there is one.
        index: String,
    },
    /// Files of weights of which some are missing.
    #[error("{path}: the weights are incomplete, {missing} missing; pull the model again")]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// Names of files.
        missing: String,
    },
    /// A tensor that two files have.
    #[error("{path}: tensor {tensor} is in {other} too; remove the file that does not belong to this model")]
    Twice {
        /// The file.
        path: PathBuf,
        /// The other one.
        other: PathBuf,
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor that the model needs is not there.
    #[error(
        "{path}: no tensor {tensor}, which this model needs; is the checkpoint complete and its config.json the right one?"
    )]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor has another type or shape than `config.json` implies.
    #[error(
        "{path}: tensor {tensor} is {found}, expected {expected}; config.json and the weights do not belong together"
    )]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Type and shape found.
        found: String,
        /// Type and shape expected.
        expected: String,
    },
    /// A synthetic checkpoint cannot be written.
    #[error("{0}")]
    Synth(String),
}

impl CheckpointError {
    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        let hint = match source.kind() {
            std::io::ErrorKind::NotFound => "name a folder with config.json and safetensors files, or pull the model",
            _ => "check the file and its permissions",
        };
        Self::Read { path: path.to_owned(), source, hint }
    }

    pub(crate) fn config(path: &Path, key: &str, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Config { path: path.to_owned(), key: key.into(), found: found.to_string(), expected: expected.into() }
    }
}

/// Outcome of reading a checkpoint.
pub type Result<T, E = CheckpointError> = std::result::Result<T, E>;
