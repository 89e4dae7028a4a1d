//! Runs of bytes over several buffers: moved by the host where it reaches them, else by copies that are recorded.

use crate::transfer::direction::Direction;
use crate::transfer::{Fill, Sink};
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Buffer, DeviceError, Encoder, Op, Result, Storage};

/// Bytes of several buffers.
pub(crate) fn total(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(Buffer::len).sum()
}

/// True if the host reaches all of them.
pub(crate) fn within_reach(buffers: &[Buffer]) -> bool {
    buffers.iter().all(|b| b.memory().storage() == Storage::Shared)
}

/// Runs `fill` on the memory of `to` itself, or beside it where that is in several pieces.
pub(crate) fn fill_directly(to: &[Buffer], fill: Fill) -> Result<()> {
    if let [to] = to {
        let mut fill = Some(fill);
        let mut filled = Ok(());
        to.lend(&mut |bytes| {
            if let Some(fill) = fill.take() {
                filled = fill(bytes).map_err(DeviceError::CommandFailed);
            }
        })?;
        return filled;
    }
    let mut bytes = vec![0; total(to) as usize];
    fill(&mut bytes).map_err(DeviceError::CommandFailed)?;
    let mut rest = &bytes[..];
    for to in to {
        let (part, behind) = rest.split_at(to.len() as usize);
        to.write(0, part)?;
        rest = behind;
    }
    Ok(())
}

/// Gives `sink` the bytes of `from`.
pub(crate) fn drain_directly(from: &[Buffer], sink: Sink) -> Result<()> {
    let mut bytes = vec![0; total(from) as usize];
    let mut rest = &mut bytes[..];
    for from in from {
        let (part, behind) = rest.split_at_mut(from.len() as usize);
        from.read(0, part)?;
        rest = behind;
    }
    sink(&bytes).map_err(DeviceError::CommandFailed)
}

/// Records copies between `whole`, which holds the bytes one behind the other, and `parts`, which an upload fills.
pub(crate) fn record_copies(
    encoder: &mut dyn Encoder,
    parts: &[Buffer],
    whole: &Buffer,
    direction: Direction,
) -> Result<()> {
    let mut at = 0;
    for part in parts {
        let piece = whole.slice(at..at + part.len())?;
        at += part.len();
        let (from, to) = match direction {
            Direction::Upload => (piece, part.clone()),
            Direction::Download => (part.clone(), piece),
        };
        encoder.record(Op::Copy(Copy { from, to }))?;
    }
    Ok(())
}
