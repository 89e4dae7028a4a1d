use crate::find::Survey;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Bytes before the driver's: the checksum of them.
const HEAD: usize = 4;
/// The driver's own header: length, version, vendor, device, UUID.
const HEADER: usize = 32;

/// A driver's pipeline cache on disk.
#[derive(Debug)]
pub(super) struct CacheFile {
    path: PathBuf,
    /// Vendor, device and UUID as the driver's header has them.
    identity: Vec<u8>,
}

impl CacheFile {
    /// The file of this driver and device in `folder`.
    pub(super) fn new(folder: &Path, survey: &Survey) -> Self {
        Self::of(folder, survey.vendor, survey.device, &survey.cache_uuid)
    }

    fn of(folder: &Path, vendor: u32, device: u32, uuid: &[u8]) -> Self {
        let name: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let identity = [&vendor.to_le_bytes()[..], &device.to_le_bytes(), uuid].concat();
        Self { path: folder.join(format!("{vendor:x}-{device:x}-{name}.bin")), identity }
    }

    /// Data that this driver saved; nothing if there is none or it is damaged, which costs time and no more.
    pub(super) fn load(&self) -> Option<Vec<u8>> {
        match fs::read(&self.path) {
            Ok(bytes) => {
                let data = self.check(bytes);
                if data.is_none() {
                    tracing::debug!(target: "vulkan", path = %self.path.display(), "a damaged pipeline cache is ignored");
                }
                data
            }
            Err(error) => {
                tracing::debug!(target: "vulkan", path = %self.path.display(), %error, "no pipeline cache");
                None
            }
        }
    }

    fn check(&self, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let sum = bytes.first_chunk::<HEAD>().copied()?;
        let data = bytes.split_off(HEAD);
        let own = data.get(8..HEADER)? == self.identity;
        (own && crc32fast::hash(&data).to_le_bytes() == sum).then_some(data)
    }

    /// Replaces the file at once: readers see the old one or the new one.
    pub(super) fn save(&self, data: &[u8]) {
        if let Err(error) = self.replace(data) {
            tracing::debug!(target: "vulkan", path = %self.path.display(), %error, "the pipeline cache was not saved");
        }
    }

    fn replace(&self, data: &[u8]) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let new = self.path.with_extension(format!("{}.new", std::process::id()));
        let sum = crc32fast::hash(data).to_le_bytes();
        let written = fs::write(&new, [&sum[..], data].concat()).and_then(|()| fs::rename(&new, &self.path));
        written.inspect_err(|_| drop(fs::remove_file(&new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(vendor: u32, device: u32, uuid: &[u8]) -> Vec<u8> {
        let words = [32, 1, vendor, device].map(u32::to_le_bytes).concat();
        [&words[..], uuid, b"pipelines"].concat()
    }

    #[test]
    fn gives_back_what_was_saved_for_the_same_driver() {
        let folder = tempfile::tempdir().unwrap();
        let nested = folder.path().join("a/b");
        let file = CacheFile::of(&nested, 1, 2, &[7; 16]);
        assert_eq!(file.load(), None);
        file.save(&data(1, 2, &[7; 16]));
        assert_eq!(file.load(), Some(data(1, 2, &[7; 16])));
        assert_eq!(CacheFile::of(&nested, 1, 2, &[8; 16]).load(), None, "another driver has another file");
        assert_eq!(fs::read_dir(&nested).unwrap().count(), 1, "nothing else is left");
        file.save(&data(1, 3, &[7; 16]));
        assert_eq!(file.load(), None, "the contents are another device's");
    }

    #[test]
    fn damage_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let file = CacheFile::of(folder.path(), 1, 2, &[7; 16]);
        file.save(&data(1, 2, &[7; 16]));
        let good = fs::read(&file.path).unwrap();
        for len in [0, 3, 4, 35, good.len() - 1] {
            fs::write(&file.path, &good[..len]).unwrap();
            assert_eq!(file.load(), None, "{len} bytes of {}", good.len());
        }
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&file.path, flipped).unwrap();
        assert_eq!(file.load(), None);
    }
}
