use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What a spill file begins with, so that no other file is overwritten.
const MAGIC: &[u8; 16] = b"mlx-serving-kv\0\x01";

/// A file of slots of one length, made anew by every engine and removed with it.
#[derive(Debug)]
pub(crate) struct SpillFile {
    path: PathBuf,
    file: Mutex<File>,
    slot_bytes: u64,
    slots: u64,
    free: Arc<Mutex<Free>>,
}

/// Slots that nobody holds.
#[derive(Debug, Default)]
struct Free {
    used_before: Vec<u64>,
    /// The first that was never used.
    next: u64,
}

/// A slot, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u64,
    free: Arc<Mutex<Free>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).used_before.push(self.number);
    }
}

impl SpillFile {
    /// Room for `bytes` in slots of `slot_bytes`. Refuses a file with other content, and one that another engine uses.
    pub(crate) fn create(path: &Path, bytes: u64, slot_bytes: u64) -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            // It holds what people asked.
            options.mode(0o600);
        }
        let mut file = options.open(path)?;
        file.try_lock().map_err(|e| match e {
            std::fs::TryLockError::WouldBlock => io::Error::other("another engine uses it"),
            std::fs::TryLockError::Error(e) => e,
        })?;
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.len() > 0 {
            let mut head = [0; MAGIC.len()];
            let read = file.read(&mut head)?;
            if read < head.len() || head != *MAGIC {
                return Err(io::Error::other("it exists and is no spill file"));
            }
            file.set_len(0)?;
        }
        if metadata.is_file() {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(MAGIC)?;
        }
        let slots = bytes / slot_bytes.max(1);
        Ok(Self { path: path.to_owned(), file: Mutex::new(file), slot_bytes, slots, free: Arc::default() })
    }

    /// A slot that nobody holds.
    pub(crate) fn slot(&self) -> Option<Arc<Slot>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match free.used_before.pop() {
            Some(number) => number,
            None if free.next < self.slots => {
                free.next += 1;
                free.next - 1
            }
            None => return None,
        };
        Some(Arc::new(Slot { number, free: self.free.clone() }))
    }

    pub(crate) fn write(&self, slot: &Slot, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(self.place(slot))?;
        file.write_all(bytes)
    }

    pub(crate) fn read(&self, slot: &Slot, bytes: &mut [u8]) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(self.place(slot))?;
        file.read_exact(bytes)
    }

    fn place(&self, slot: &Slot) -> SeekFrom {
        SeekFrom::Start(MAGIC.len() as u64 + slot.number * self.slot_bytes)
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        // A device that stands in for a file stays.
        if self.path.is_file() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back_when_their_last_holder_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv");
        let file = SpillFile::create(&path, 20, 10).unwrap();
        let (one, two) = (file.slot().unwrap(), file.slot().unwrap());
        assert!(file.slot().is_none());
        file.write(&one, &[1; 10]).unwrap();
        file.write(&two, &[2; 10]).unwrap();
        let reader = one.clone();
        drop(one);
        assert!(file.slot().is_none(), "it is still being read");
        let mut bytes = [0; 10];
        file.read(&reader, &mut bytes).unwrap();
        assert_eq!(bytes, [1; 10]);
        drop(reader);
        assert!(file.slot().is_some());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_with_other_content_or_of_another_engine_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("letters.txt");
        std::fs::write(&path, "to be kept, whatever a configuration says").unwrap();
        let error = SpillFile::create(&path, 100, 10).unwrap_err().to_string();
        assert!(error.contains("no spill file"), "{error}");
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("to be kept"));
        let path = dir.path().join("kv");
        let file = SpillFile::create(&path, 100, 10).unwrap();
        assert!(SpillFile::create(&path, 100, 10).unwrap_err().to_string().contains("another engine"));
        // An engine that was killed leaves its file behind.
        std::mem::forget(file);
    }
}
