use crate::CheckpointError;
use memmap2::{Advice, Mmap};
use safetensors::tensor::{Metadata, SafeTensors, TensorInfo};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One mapped safetensors file with a validated header.
#[derive(Debug)]
pub(crate) struct Shard {
    path: PathBuf,
    map: Mmap,
    metadata: Metadata,
    /// Where the tensors' bytes begin.
    data: usize,
}

/// Maps a file for reading.
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the bytes are only ever read as `u8`, so no value of them is invalid. A file that another process shortens while it
    // is mapped ends this process with a signal instead of an error; every loader of mapped checkpoints accepts that, and the
    // map is dropped as soon as the weights are packed.
    #[allow(unsafe_code)]
    unsafe {
        Mmap::map(file)
    }
}

impl Shard {
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file = File::open(path).map_err(|e| CheckpointError::read(path, e))?;
        let map = map_file(&file).map_err(|e| CheckpointError::read(path, e))?;
        let (data, metadata) = parse_header(&map, path)?;
        Ok(Self { path: path.to_owned(), map, metadata, data })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    pub(crate) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(name)
    }

    /// A tensor's bytes. The header was validated: they lie within the file.
    pub(crate) fn bytes(&self, info: &TensorInfo) -> &[u8] {
        &self.map[self.data + info.data_offsets.0..self.data + info.data_offsets.1]
    }

    /// Tells the system that a range of tensor bytes will not be read again soon. Advice: whether it is taken does not matter.
    pub(crate) fn release(&self, range: Range<usize>) {
        // Whole pages only: the neighbours' bytes may still be wanted.
        const PAGE: usize = 16 << 10;
        let (start, end) = ((self.data + range.start).next_multiple_of(PAGE), (self.data + range.end) / PAGE * PAGE);
        if start < end {
            #[cfg(unix)]
            {
                // SAFETY: the map is private to this process and read-only: dropped pages are read from the file again.
                #[allow(unsafe_code)]
                let advised =
                    unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
                let _ = advised;
            }
        }
    }

    /// Asks the system to read a range ahead.
    pub(crate) fn prefetch(&self, range: Range<usize>) {
        #[cfg(unix)]
        let _ = self.map.advise_range(Advice::WillNeed, self.data + range.start, range.len());
    }
}

/// Parses and validates a header; the offset of the tensors' bytes and the tensors.
pub(crate) fn parse_header(bytes: &[u8], path: &Path) -> Result<(usize, Metadata), CheckpointError> {
    let format = |message: String| CheckpointError::Format { path: path.to_owned(), message };
    if let Some(claimed) = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)) {
        let rest = bytes.len() as u64 - 8;
        if claimed > rest {
            return Err(format(format!("its header claims {claimed} bytes, but the file has {rest} after the length")));
        }
    }
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| format(e.to_string()))?;
    Ok((header + 8, metadata))
}
