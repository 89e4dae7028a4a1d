use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The beginning of a spill file, so that no other file is overwritten.
const MAGIC: &[u8; 16] = b"mlx-serving-kv\0\x01";

/// A file of slots of one length, created by each engine and removed with it.
#[derive(Debug)]
pub(crate) struct SpillFile {
    path: PathBuf,
    /// The file that was made for it, which is the only one that it removes.
    made: Option<Identity>,
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
pub(crate) struct FileSlot {
    number: u64,
    free: Arc<Mutex<Free>>,
}

impl Drop for FileSlot {
    fn drop(&mut self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).used_before.push(self.number);
    }
}

impl SpillFile {
    /// Room for `bytes` in slots of `slot_bytes`. Takes the place of what an engine that was killed has left behind; refuses
    /// any other file, and one that another engine uses. A failure leaves no file.
    pub(crate) fn create(path: &Path, bytes: u64, slot_bytes: u64) -> io::Result<Self> {
        let (file, made) = match create_new(path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => take_place(path)?,
            Err(error) => return Err(error),
        };
        let made = if made { Some(Identity::of(&file)?) } else { None };
        let slots = bytes / slot_bytes.max(1);
        // From here on a failure drops the file, which removes it.
        let this =
            Self { path: path.to_owned(), made, file: Mutex::new(file), slot_bytes, slots, free: Arc::default() };
        if this.made.is_some() {
            let mut file = this.file.lock().unwrap_or_else(PoisonError::into_inner);
            lock(&file)?;
            file.write_all(MAGIC)?;
        }
        Ok(this)
    }

    /// A slot that nobody holds.
    pub(crate) fn slot(&self) -> Option<Arc<FileSlot>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match free.used_before.pop() {
            Some(number) => number,
            None if free.next < self.slots => {
                free.next += 1;
                free.next - 1
            }
            None => return None,
        };
        Some(Arc::new(FileSlot { number, free: self.free.clone() }))
    }

    pub(crate) fn write(&self, slot: &FileSlot, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(self.place(slot))?;
        file.write_all(bytes)
    }

    pub(crate) fn read(&self, slot: &FileSlot, bytes: &mut [u8]) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(self.place(slot))?;
        file.read_exact(bytes)
    }

    fn place(&self, slot: &FileSlot) -> SeekFrom {
        SeekFrom::Start(MAGIC.len() as u64 + slot.number * self.slot_bytes)
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        // Somebody may have put another file into its place, or have removed it.
        let there = std::fs::symlink_metadata(&self.path).ok().map(|metadata| Identity::from(&metadata));
        if self.made.is_some()
            && there == self.made
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the KV spill file cannot be removed");
        }
    }
}

/// Identity of a file, whatever its name; all files are one where the system does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    #[cfg(unix)]
    device_and_inode: (u64, u64),
}

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }
}

impl From<&Metadata> for Identity {
    #[cfg_attr(not(unix), expect(unused_variables, reason = "there is nothing to be read from it"))]
    fn from(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Self {
            #[cfg(unix)]
            device_and_inode: (metadata.dev(), metadata.ino()),
        }
    }
}

fn options() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true);
    options
}

/// A file that was not there, for its owner only: it holds what people asked.
fn create_new(path: &Path) -> io::Result<File> {
    let mut options = options();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.create_new(true).open(path)
}

fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::other("another engine uses it"),
        TryLockError::Error(error) => error,
    })
}

/// Recreates the file of a killed engine and returns true; opens a character device in its place as it is and returns false.
fn take_place(path: &Path) -> io::Result<(File, bool)> {
    let kind = std::fs::symlink_metadata(path)?.file_type();
    #[cfg(unix)]
    if std::os::unix::fs::FileTypeExt::is_char_device(&kind) {
        return Ok((options().open(path)?, false));
    }
    if !kind.is_file() {
        return Err(io::Error::other("it exists and is not a file"));
    }
    let mut old = options().open(path)?;
    // Held until the new one is there, so that of two engines that start at once only one comes this far.
    lock(&old)?;
    let mut head = [0; MAGIC.len()];
    match old.read_exact(&mut head) {
        Ok(()) if head == *MAGIC => {}
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => return Err(io::Error::other("it exists and is not a spill file")),
    }
    std::fs::remove_file(path)?;
    Ok((create_new(path)?, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_free_again_when_their_last_holder_goes() {
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

    fn refused(path: &Path) -> String {
        SpillFile::create(path, 100, 10).unwrap_err().to_string()
    }

    #[test]
    fn a_file_that_is_not_its_own_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["to be kept, whatever a configuration says", "short", ""] {
            let path = dir.path().join("letters.txt");
            std::fs::write(&path, content).unwrap();
            assert!(refused(&path).contains("not a spill file"), "{content}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        assert!(refused(dir.path()).contains("not a file"));
        let path = dir.path().join("kv");
        let file = SpillFile::create(&path, 100, 10).unwrap();
        assert!(refused(&path).contains("another engine"));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn the_file_of_a_killed_engine_is_recreated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv");
        std::fs::write(&path, [&MAGIC[..], &[7; 100]].concat()).unwrap();
        let file = SpillFile::create(&path, 100, 10).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), MAGIC);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "the old file's mode was for all to read");
        }
        drop(file);
        assert!(!path.exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_stranger_in_its_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv");
        let file = SpillFile::create(&path, 100, 10).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a stranger's").unwrap();
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a stranger's");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(refused(&path).contains("not a file"));
        assert!(!dir.path().join("elsewhere").exists());
    }
}
