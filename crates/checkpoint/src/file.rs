//! Plain files of a checkpoint: opened only if they are files, read only where they had bytes when they were opened.

use crate::CheckpointError;
use std::fs::{File, FileType, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file for reading, as it was when it was opened. Nothing of it is mapped: one that shrinks is an error, not a signal.
#[derive(Debug)]
pub(crate) struct PlainFile {
    path: PathBuf,
    file: File,
    len: u64,
    modified: Option<SystemTime>,
}

impl PlainFile {
    /// Opens a file. What is no file is refused before it is opened: a pipe would wait for somebody to write.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let read = |e| CheckpointError::read(path, e);
        refuse_special(path, &std::fs::metadata(path).map_err(read)?)?;
        let file = File::open(path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        refuse_special(path, &metadata)?;
        Ok(Self { path: path.to_owned(), file, len: metadata.len(), modified: metadata.modified().ok() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that it had when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// The system's; a file that has been written to since it was opened: its bytes belong to no checkpoint.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), CheckpointError> {
        let read = read_exact_at(&self.file, out, offset);
        self.unchanged()?;
        read.map_err(|e| CheckpointError::read(&self.path, e))
    }

    fn unchanged(&self) -> Result<(), CheckpointError> {
        let now = self.file.metadata().map_err(|e| CheckpointError::read(&self.path, e))?;
        if now.len() == self.len && now.modified().ok() == self.modified {
            return Ok(());
        }
        Err(CheckpointError::Changed { path: self.path.clone(), opened: self.len, now: now.len() })
    }
}

/// Refuses a folder in which a file that a model is read from is none: a reader of a pipe or of a device would never end. The files that
/// this crate opens are checked again then; tokenizer and chat template, which others open, are checked here.
pub(crate) fn refuse_special_in(dir: &Path) -> Result<(), CheckpointError> {
    // A folder that cannot be listed fails where its files are read.
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let read = path.extension().is_some_and(|e| e == "json" || e == "jinja" || e == "safetensors");
        if let Some(metadata) = read.then(|| std::fs::metadata(&path).ok()).flatten()
            && !metadata.is_dir()
        {
            refuse_special(&path, &metadata)?;
        }
    }
    Ok(())
}

fn refuse_special(path: &Path, metadata: &Metadata) -> Result<(), CheckpointError> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(CheckpointError::Special { path: path.to_owned(), kind: kind(metadata.file_type()) })
}

#[cfg(unix)]
fn kind(what: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match what {
        what if what.is_dir() => "folder",
        what if what.is_fifo() => "pipe",
        what if what.is_socket() => "socket",
        _ => "device",
    }
}

#[cfg(not(unix))]
fn kind(what: FileType) -> &'static str {
    if what.is_dir() { "folder" } else { "device" }
}

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => {
                out = &mut out[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}
