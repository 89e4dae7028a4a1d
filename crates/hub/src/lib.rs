//! Models in the Hugging Face cache layout: pull, list, remove. It knows nothing of tensors, and reads no environment.
//!
//! ```text
//! models--org--name/
//!     refs/main                      the commit that `main` stood for when it was last pulled; so for other branches and tags
//!     snapshots/<commit>/config.json a symbolic link to ../../blobs/<hash>
//!     blobs/<hash>                   a file's content; <hash>.incomplete while it is downloaded
//! .locks/models--org--name/<hash>.lock
//! ```
//!
//! The layout is shared with `huggingface_hub` and everything built on it: what one has downloaded, the others find.
#![forbid(unsafe_code)]

mod cache;
mod client;
mod download;
mod error;
mod id;

pub use cache::{Cache, CachedModel};
pub use download::Progress;
pub use error::HubError;
pub use id::ModelId;

use client::Client;
use std::path::PathBuf;

/// Source and destination of models.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cache's folder: `HF_HUB_CACHE`.
    pub cache: PathBuf,
    /// The hub, without a slash at the end: `HF_ENDPOINT`.
    pub endpoint: String,
    /// Sent to the endpoint, and to nobody that it redirects to: `HF_TOKEN`.
    pub token: Option<String>,
    /// Never asks the hub: `HF_HUB_OFFLINE`.
    pub offline: bool,
}

/// The hub and the cache in front of it.
#[derive(Debug, Clone)]
pub struct Hub {
    options: Options,
    cache: Cache,
}

impl Hub {
    /// A hub; nothing is read or asked yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { cache: Cache::new(options.cache.clone()), options }
    }

    /// The cache.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The folder of a cached model; pulled first if it is not there or not whole.
    ///
    /// # Errors
    /// See [`HubError`].
    pub fn resolve(&self, id: &ModelId, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, HubError> {
        match self.cache.snapshot(id)? {
            Some(path) => Ok(path),
            None => self.pull(id, progress),
        }
    }

    /// Downloads what is missing of the newest commit of the id's revision: weights, configuration, tokenizer, chat template. A download
    /// that was cut off goes on where it stopped.
    ///
    /// # Errors
    /// See [`HubError`].
    pub fn pull(&self, id: &ModelId, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, HubError> {
        if self.options.offline {
            return Err(HubError::Offline { id: id.clone(), cache: self.options.cache.clone() });
        }
        let client = Client::new(&self.options);
        let repository = client.repository(id)?;
        download::snapshot(&client, &self.cache, id, &repository, progress)
    }
}
