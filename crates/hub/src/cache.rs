//! The cache's folders.

use crate::{HubError, ModelId};
use mlx_serving_checkpoint::WeightFiles;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Digits of a commit's hash, at least, that may stand for it.
const LEAST_DIGITS: usize = 7;

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
    /// Branches and tags that it was pulled as.
    pub refs: Vec<String>,
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

    /// The folder of the commit that the id's revision stood for when it was last pulled, if all of it is there.
    ///
    /// # Errors
    /// [`HubError::Io`].
    pub fn snapshot(&self, id: &ModelId) -> Result<Option<PathBuf>, HubError> {
        let commit = self.commit(id)?;
        Ok(commit.map(|commit| self.snapshot_dir(id, &commit)).filter(|dir| is_complete(dir)))
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
            let refs = self.refs(&id)?;
            for path in entries(&folder.join("snapshots"))?.into_iter().filter(|path| path.is_dir()) {
                models.push(describe(id.clone(), path, &refs)?);
            }
        }
        models.sort_by(|a, b| (&a.id, &a.revision).cmp(&(&b.id, &b.revision)));
        Ok(models)
    }

    /// Removes a model and returns the bytes that are free now: the revision that the id names, or all of them.
    ///
    /// # Errors
    /// [`HubError::NotCached`] and [`HubError::Io`].
    pub fn remove(&self, id: &ModelId) -> Result<u64, HubError> {
        let folder = self.folder(id);
        let not_cached = || HubError::NotCached { id: id.clone(), cache: self.root.clone() };
        if !folder.is_dir() {
            return Err(not_cached());
        }
        if id.named_revision().is_some() {
            let commit = self.commit(id)?.ok_or_else(not_cached)?;
            let snapshot = self.snapshot_dir(id, &commit);
            if !snapshot.is_dir() {
                return Err(not_cached());
            }
            // The last revision goes with all that the model has.
            if entries(&folder.join("snapshots"))?.iter().any(|other| *other != snapshot) {
                return self.remove_snapshot(id, &commit);
            }
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

    /// Removes one of several snapshots, the names that stand for it, and the blobs that no other has.
    fn remove_snapshot(&self, id: &ModelId, commit: &str) -> Result<u64, HubError> {
        let snapshot = self.snapshot_dir(id, commit);
        let own = blobs(&snapshot)?;
        for (name, of) in self.refs(id)? {
            if of == commit {
                let path = self.folder(id).join("refs").join(name);
                std::fs::remove_file(&path).map_err(HubError::io(&path))?;
            }
        }
        std::fs::remove_dir_all(&snapshot).map_err(HubError::io(&snapshot))?;
        let mut kept = BTreeSet::new();
        for other in entries(&self.folder(id).join("snapshots"))? {
            kept.extend(blobs(&other)?);
        }
        let mut freed = 0;
        for name in own.difference(&kept) {
            let blob = self.folder(id).join("blobs").join(name);
            // Another process may have been quicker.
            let Ok(meta) = blob.symlink_metadata() else { continue };
            std::fs::remove_file(&blob).map_err(HubError::io(&blob))?;
            freed += meta.len();
        }
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
        let link = self.snapshot_dir(id, commit).join(name);
        let folder = link.parent().unwrap_or(&link);
        std::fs::create_dir_all(folder).map_err(HubError::io(folder))?;
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(HubError::io(&link)(error)),
            _ => {}
        }
        #[cfg(unix)]
        let linked = {
            let up = "../".repeat(name.matches('/').count());
            std::os::unix::fs::symlink(Path::new(&up).join("../../blobs").join(hash), &link)
        };
        // Elsewhere symbolic links take privileges.
        #[cfg(not(unix))]
        let linked = std::fs::copy(self.blob(id, hash), &link).map(drop);
        linked.map_err(HubError::io(&link))
    }

    /// Makes a commit the one that the id's revision stands for.
    pub(crate) fn set_ref(&self, id: &ModelId, commit: &str) -> Result<(), HubError> {
        // A commit's own hash needs no name.
        if id.revision() == commit {
            return Ok(());
        }
        let path = self.folder(id).join("refs").join(id.revision());
        let folder = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(folder).map_err(HubError::io(folder))?;
        std::fs::write(&path, commit).map_err(HubError::io(&path))
    }

    /// The commit that an id's revision stands for: a branch's or tag's as it was last pulled, a commit that is there, or the only one
    /// that is there and begins so.
    fn commit(&self, id: &ModelId) -> Result<Option<String>, HubError> {
        let revision = id.revision();
        if let Some((_, commit)) = self.refs(id)?.into_iter().find(|(name, _)| name == revision) {
            return Ok(Some(commit));
        }
        if revision.len() < LEAST_DIGITS || !is_commit(revision) {
            return Ok(None);
        }
        let snapshots = entries(&self.folder(id).join("snapshots"))?;
        let mut found =
            snapshots.iter().filter_map(|path| path.file_name()?.to_str()).filter(|c| c.starts_with(revision));
        Ok(found.next().filter(|_| found.next().is_none()).map(str::to_owned))
    }

    /// Names of a model's commits, sorted: branches and tags that were pulled.
    fn refs(&self, id: &ModelId) -> Result<Vec<(String, String)>, HubError> {
        let root = self.folder(id).join("refs");
        let (mut folders, mut refs) = (vec![root.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for path in entries(&folder)? {
                // A name has slashes perhaps, and then folders.
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(&root).ok().and_then(Path::to_str).map(str::to_owned);
                let content = std::fs::read(&path).map_err(HubError::io(&path))?;
                let commit = String::from_utf8_lossy(&content).trim().to_owned();
                refs.extend(name.filter(|_| is_commit(&commit)).map(|name| (name, commit)));
            }
        }
        refs.sort();
        Ok(refs)
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

/// Files of a snapshot, those in its folders too: other programs pull whole repositories.
fn files(snapshot: &Path) -> Result<Vec<PathBuf>, HubError> {
    let (mut folders, mut files) = (vec![snapshot.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        let (below, here): (Vec<_>, Vec<_>) =
            entries(&folder)?.into_iter().partition(|path| path.is_dir() && !path.is_symlink());
        folders.extend(below);
        files.extend(here);
    }
    Ok(files)
}

/// True for text that may be a commit, and is safe as the name of a folder.
fn is_commit(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Names of the blobs that a snapshot's files link to; empty where links are not available.
fn blobs(snapshot: &Path) -> Result<BTreeSet<OsString>, HubError> {
    let links = files(snapshot)?.into_iter().filter_map(|file| std::fs::read_link(file).ok());
    Ok(links.filter_map(|link| link.file_name().map(ToOwned::to_owned)).collect())
}

/// True if weights and configuration are all there, by the loader's rule: other programs leave snapshots of a few files, or stop half-way.
fn is_complete(snapshot: &Path) -> bool {
    // `is_file` follows links: one that dangles counts as missing.
    snapshot.join("config.json").is_file() && WeightFiles::find(snapshot).is_ok()
}

fn describe(id: ModelId, path: PathBuf, refs: &[(String, String)]) -> Result<CachedModel, HubError> {
    let revision = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let refs = refs.iter().filter(|(_, commit)| *commit == revision).map(|(name, _)| name.clone()).collect();
    let (mut size, mut last_used) = (0, None);
    for file in files(&path)? {
        // A link that dangles takes no space.
        let Ok(meta) = file.metadata() else { continue };
        if meta.is_file() {
            size += meta.len();
            last_used = last_used.max(meta.accessed().ok());
        }
    }
    Ok(CachedModel { id, revision, refs, size, complete: is_complete(&path), path, last_used })
}
