use crate::CheckpointError;
use crate::file::PlainFile;
use std::path::Path;

/// Longest JSON file read: configuration is small, and an index of 100 000 tensors is a few MB.
const LIMIT: u64 = 64 << 20;

/// Reads and parses a JSON file; `None` if it is not there.
pub(crate) fn read_optional<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, CheckpointError> {
    match read(path) {
        Err(CheckpointError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Reads and parses a JSON file that must be there.
pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CheckpointError> {
    let file = PlainFile::open(path)?;
    if file.len() > LIMIT {
        let message = format!("{} bytes; a JSON file of a checkpoint has at most {LIMIT}", file.len());
        return Err(CheckpointError::Json { path: path.to_owned(), message });
    }
    let mut bytes = vec![0; file.len() as usize];
    file.read(0, &mut bytes)?;
    parse(&bytes, path)
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<T, CheckpointError> {
    serde_json::from_slice(bytes)
        .map_err(|e| CheckpointError::Json { path: path.to_owned(), message: format!("invalid JSON: {e}") })
}
