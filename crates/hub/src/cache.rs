//! The cache's folders.

use crate::{HubError, ModelId};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A folder in the Hugging Face cache layout.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// A snapshot in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// The model.
    pub id: ModelId,
    /// The commit.
    pub revision: String,
    /// Bytes that its files take.
    pub size: u64,
    /// Folder of the snapshot.
    pub path: PathBuf,
    /// Time at which one of its files was last read, as far as the file system keeps that.
    pub last_used: Option<SystemTime>,
    /// True if everything is there that is needed to run the model.
    pub complete: bool,
}

impl Cache {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The cache's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the commit that `main` stood for when the model was last pulled, if all of it is there.
    ///
    /// # Errors
    /// [`HubError::Io`].
    pub fn snapshot(&self, id: &ModelId) -> Result<Option<PathBuf>, HubError> {
        let main = self.main(id);
        let commit = match std::fs::read_to_string(&main) {
            Ok(commit) => commit,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(HubError::io(&main)(error)),
        };
        let commit = commit.trim();
        let safe = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
        Ok(safe.then(|| self.snapshot_dir(id, commit)).filter(|dir| is_complete(dir)))
    }

    /// Lists every snapshot, by id and revision.
    ///
    /// # Errors
    /// [`HubError::Io`]. A cache that does not exist holds nothing.
    pub fn list(&self) -> Result<Vec<CachedModel>, HubError> {
        let mut models = Vec::new();
        for folder in entries(&self.root)? {
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let Some(id) = ModelId::from_folder(&name) else { continue };
            for path in entries(&folder.join("snapshots"))?.into_iter().filter(|path| path.is_dir()) {
                models.push(describe(id.clone(), path)?);
            }
        }
        models.sort_by(|a, b| (&a.id, &a.revision).cmp(&(&b.id, &b.revision)));
        Ok(models)
    }

    /// Removes a model, all its revisions, and returns the bytes that are free now.
    ///
    /// # Errors
    /// [`HubError::NotCached`] and [`HubError::Io`].
    pub fn remove(&self, id: &ModelId) -> Result<u64, HubError> {
        let folder = self.folder(id);
        if !folder.is_dir() {
            return Err(HubError::NotCached { id: id.clone(), cache: self.root.clone() });
        }
        let mut freed = 0;
        for blob in entries(&folder.join("blobs"))? {
            freed += blob.symlink_metadata().map_err(HubError::io(&blob))?.len();
        }
        std::fs::remove_dir_all(&folder).map_err(HubError::io(&folder))?;
        // Empty files: if they stay, nobody minds.
        let _ = std::fs::remove_dir_all(self.locks(id));
        Ok(freed)
    }

    pub(crate) fn snapshot_dir(&self, id: &ModelId, commit: &str) -> PathBuf {
        self.folder(id).join("snapshots").join(commit)
    }

    pub(crate) fn blob(&self, id: &ModelId, hash: &str) -> PathBuf {
        self.folder(id).join("blobs").join(hash)
    }

    /// Waits until no other process downloads this blob. Ends when the file is dropped.
    pub(crate) fn lock(&self, id: &ModelId, hash: &str) -> Result<File, HubError> {
        for folder in [self.folder(id).join("blobs"), self.locks(id)] {
            std::fs::create_dir_all(&folder).map_err(HubError::io(&folder))?;
        }
        let path = self.locks(id).join(format!("{hash}.lock"));
        let file = File::create(&path).map_err(HubError::io(&path))?;
        match file.lock() {
            // Without locks, two downloads of one file at a time are noticed by its hash.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(file),
            result => result.map(|()| file).map_err(HubError::io(&path)),
        }
    }

    /// Puts a blob into a snapshot under its file's name. The blob's lock must be held.
    pub(crate) fn link(&self, id: &ModelId, commit: &str, name: &str, hash: &str) -> Result<(), HubError> {
        let folder = self.snapshot_dir(id, commit);
        std::fs::create_dir_all(&folder).map_err(HubError::io(&folder))?;
        let link = folder.join(name);
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(HubError::io(&link)(error)),
            _ => {}
        }
        #[cfg(unix)]
        let linked = std::os::unix::fs::symlink(Path::new("../../blobs").join(hash), &link);
        // Elsewhere symbolic links take privileges.
        #[cfg(not(unix))]
        let linked = std::fs::copy(self.blob(id, hash), &link).map(drop);
        linked.map_err(HubError::io(&link))
    }

    /// Makes a commit the one that [`Self::snapshot`] finds.
    pub(crate) fn set_main(&self, id: &ModelId, commit: &str) -> Result<(), HubError> {
        let main = self.main(id);
        let folder = main.parent().unwrap_or(&main);
        std::fs::create_dir_all(folder).map_err(HubError::io(folder))?;
        std::fs::write(&main, commit).map_err(HubError::io(&main))
    }

    fn main(&self, id: &ModelId) -> PathBuf {
        self.folder(id).join("refs").join("main")
    }

    fn folder(&self, id: &ModelId) -> PathBuf {
        self.root.join(id.folder())
    }

    fn locks(&self, id: &ModelId) -> PathBuf {
        self.root.join(".locks").join(id.folder())
    }
}

/// Entries of a folder; none if there is no folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, HubError> {
    let read = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(HubError::io(folder))?,
    };
    read.map(|entry| Ok(entry.map_err(HubError::io(folder))?.path())).collect()
}

/// True if weights and configuration are all there: other programs leave snapshots of a few files, or stop half-way.
fn is_complete(snapshot: &Path) -> bool {
    // `is_file` follows links: one that dangles counts as missing.
    if !snapshot.join("config.json").is_file() {
        return false;
    }
    let index = snapshot.join("model.safetensors.index.json");
    // Reading a pipe would wait for a writer; the loader refuses it.
    match index.is_file().then(|| std::fs::read(&index)).and_then(Result::ok) {
        Some(index) => {
            let index: Value = serde_json::from_slice(&index).unwrap_or_default();
            let shards: Option<BTreeSet<&str>> =
                index["weight_map"].as_object().map(|map| map.values().filter_map(Value::as_str).collect());
            // An index that cannot be read is for the loader to complain about.
            shards.is_none_or(|shards| shards.iter().all(|shard| snapshot.join(shard).is_file()))
        }
        None => snapshot.join("model.safetensors").is_file(),
    }
}

fn describe(id: ModelId, path: PathBuf) -> Result<CachedModel, HubError> {
    let revision = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (mut size, mut last_used) = (0, None);
    for file in entries(&path)? {
        // A link that dangles takes no space.
        let Ok(meta) = file.metadata() else { continue };
        if meta.is_file() {
            size += meta.len();
            last_used = last_used.max(meta.accessed().ok());
        }
    }
    Ok(CachedModel { id, revision, size, complete: is_complete(&path), path, last_used })
}
