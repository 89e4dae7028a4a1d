//! Failures between here and the hub, in words for the person who has to fix them.

use crate::ModelId;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Failure to find, download, list or remove a model.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A text that names no model.
    #[error(
        "{id:?} is neither a folder nor the id of a model on the hub; an id looks like mlx-community/Qwen2.5-0.5B-Instruct-4bit, with @REVISION behind it perhaps"
    )]
    Id {
        /// Text that was given.
        id: String,
    },
    /// The hub may not be asked.
    #[error(
        "{id} is not in the cache {cache}, and HF_HUB_OFFLINE forbids downloading it: unset that, or name a folder"
    )]
    Offline {
        /// The model.
        id: ModelId,
        /// The cache in which it was looked for.
        cache: PathBuf,
    },
    /// Nothing is there to remove.
    #[error("{id} is not in the cache {cache}; `mlx-serving list` shows what is")]
    NotCached {
        /// The model.
        id: ModelId,
        /// The cache in which it was looked for.
        cache: PathBuf,
    },
    /// 404, or the hub's way to say so.
    #[error(
        "{endpoint} has no model {id}, or does not show it to you: check the spelling; a private one needs HF_TOKEN"
    )]
    NotFound {
        /// The model.
        id: ModelId,
        /// The hub.
        endpoint: String,
    },
    /// The model is there, and its revision is not.
    #[error("{endpoint} has no revision {:?} of {}: name one of its branches or tags, or the whole hash of a commit", id.revision(), id.name())]
    NoRevision {
        /// The model.
        id: ModelId,
        /// The hub.
        endpoint: String,
    },
    /// 401 or 403: the model asks for more than was sent.
    #[error(
        "{endpoint} does not let you download {id}: open {endpoint}/{}, accept its conditions, and set HF_TOKEN to a token of your account that may read it", id.name()
    )]
    Forbidden {
        /// The model.
        id: ModelId,
        /// The hub.
        endpoint: String,
    },
    /// An answer that reports a failure.
    #[error("{url} answered {status}{body}; try again later")]
    Status {
        /// Address that was asked.
        url: String,
        /// HTTP's number.
        status: u16,
        /// The start of the answer, if there was one.
        body: String,
    },
    /// No answer, or one that broke off.
    #[error("{url}: {reason}; check the network and HF_ENDPOINT, then try again: downloads go on where they stopped")]
    Network {
        /// Address that was asked.
        url: String,
        /// Cause of the failure.
        reason: String,
    },
    /// An answer that cannot be understood.
    #[error("{url} did not answer as a hub does: {reason}; check HF_ENDPOINT")]
    Answer {
        /// Address that was asked.
        url: String,
        /// The answer's fault.
        reason: String,
    },
    /// A repository without the files that a model needs.
    #[error("{id} has no {missing}: it is not a model in safetensors format; look for an MLX conversion of it")]
    NoModel {
        /// The model.
        id: ModelId,
        /// The file that it lacks.
        missing: &'static str,
    },
    /// A file that is not what the hub's index says.
    #[error("{file} of {id} arrived damaged: expected {expected}, found {found}; it was deleted, try again")]
    Damaged {
        /// The model.
        id: ModelId,
        /// Name of the file.
        file: String,
        /// Size or hash.
        expected: String,
        /// Size or hash.
        found: String,
    },
    /// The cache's disk is full.
    #[error(
        "{path}: the disk is full; free some space or set HF_HUB_CACHE to another disk, then try again: downloads go on where they stopped"
    )]
    DiskFull {
        /// The file that was written.
        path: PathBuf,
    },
    /// The cache cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

impl HubError {
    /// Makes a function for `map_err`, which says what happened to `path`.
    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        |source| match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => HubError::DiskFull { path: path.to_owned() },
            _ => HubError::Io { path: path.to_owned(), source },
        }
    }
}
