use crate::CheckpointError;
use std::path::Path;

/// Longest JSON file read: configuration is small, and an index of 100 000 tensors is a few MB.
const LIMIT: u64 = 64 << 20;

/// Reads and parses a JSON file; `None` if it is not there.
pub(crate) fn read_optional<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, CheckpointError> {
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(CheckpointError::read(path, e)),
        Ok(meta) if meta.len() > LIMIT => {
            let message = format!("{} bytes; a JSON file of a checkpoint has at most {LIMIT}", meta.len());
            return Err(CheckpointError::Json { path: path.to_owned(), message });
        }
        Ok(_) => {}
    }
    let bytes = std::fs::read(path).map_err(|e| CheckpointError::read(path, e))?;
    parse(&bytes, path).map(Some)
}

/// Reads and parses a JSON file that must be there.
pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CheckpointError> {
    read_optional(path)?.ok_or_else(|| CheckpointError::read(path, std::io::ErrorKind::NotFound.into()))
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<T, CheckpointError> {
    serde_json::from_slice(bytes)
        .map_err(|e| CheckpointError::Json { path: path.to_owned(), message: format!("invalid JSON: {e}") })
}
