use crate::{Buffer, DeviceError, Result};

/// Fails unless `buffer` holds at least `values` 4-byte values at a 4-byte offset.
pub(super) fn holds(what: &str, buffer: &Buffer, values: usize) -> Result<()> {
    if buffer.len() >= 4 * values as u64 && buffer.offset().is_multiple_of(4) {
        return Ok(());
    }
    Err(DeviceError::Contract(format!("{what}: {values} values do not fit {buffer:?}")))
}

/// Fails unless `condition`.
pub(super) fn require(condition: bool, message: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { Err(DeviceError::Contract(message())) }
}
