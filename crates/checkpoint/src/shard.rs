use crate::CheckpointError;
use crate::file::PlainFile;
use safetensors::tensor::{Metadata, TensorInfo};
use std::path::Path;

/// Bytes before the header, which hold its length.
pub(crate) const PREFIX: usize = 8;
/// Longest header read, as in the format's reference implementation.
const MAX_HEADER: u64 = 100_000_000;

/// One open safetensors file with a validated header.
#[derive(Debug)]
pub(crate) struct Shard {
    file: PlainFile,
    metadata: Metadata,
    /// Offset of the tensors' bytes.
    data: u64,
}

impl Shard {
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file = PlainFile::open(path)?;
        let mut prefix = [0; PREFIX];
        if file.len() < PREFIX as u64 {
            let message = format!("{} bytes hold no header", file.len());
            return Err(CheckpointError::Format { path: path.to_owned(), message });
        }
        file.read(0, &mut prefix)?;
        let mut header = vec![0; header_len(prefix, file.len(), path)?];
        file.read(PREFIX as u64, &mut header)?;
        let metadata = parse_header(&header, file.len(), path)?;
        Ok(Self { file, metadata, data: (PREFIX + header.len()) as u64 })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    pub(crate) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(name)
    }

    /// Fills `out` with a tensor's bytes from `offset` on.
    pub(crate) fn read(
        &self,
        name: &str,
        info: &TensorInfo,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), CheckpointError> {
        // The header was validated: a tensor's bytes lie within the file.
        let (start, end) = info.data_offsets;
        let (tensor, len) = ((end - start) as u64, out.len() as u64);
        if offset.checked_add(len).is_none_or(|last| last > tensor) {
            let message = format!("{len} bytes from {offset} on of tensor {name}, which has {tensor}");
            return Err(CheckpointError::Format { path: self.path().to_owned(), message });
        }
        self.file.read(self.data + start as u64 + offset, out)
    }
}

/// Bytes of the header of a file of `file` bytes that begins with `prefix`.
pub(crate) fn header_len(prefix: [u8; PREFIX], file: u64, path: &Path) -> Result<usize, CheckpointError> {
    let (claimed, rest) = (u64::from_le_bytes(prefix), file - PREFIX as u64);
    if claimed > rest.min(MAX_HEADER) {
        let message = format!(
            "its header claims {claimed} bytes, but the file has {rest} after the length, and headers at most {MAX_HEADER}"
        );
        return Err(CheckpointError::Format { path: path.to_owned(), message });
    }
    Ok(claimed as usize)
}

/// Parses and validates the header of a file of `file` bytes: its tensors fill the rest without gaps.
pub(crate) fn parse_header(header: &[u8], file: u64, path: &Path) -> Result<Metadata, CheckpointError> {
    let format = |message: String| CheckpointError::Format { path: path.to_owned(), message };
    let metadata: Metadata = serde_json::from_slice(header).map_err(|e| format(format!("its header: {e}")))?;
    let (described, rest) = (metadata.data_len() as u64, file - (PREFIX + header.len()) as u64);
    if described != rest {
        return Err(format(format!("its header describes {described} bytes of tensors, but {rest} follow it")));
    }
    Ok(metadata)
}
