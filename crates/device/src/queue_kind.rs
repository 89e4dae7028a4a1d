use crate::{DeviceError, Op, Result};
use std::fmt;

/// Kind of a queue; a device has one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueKind {
    /// [`crate::Device::compute_queue`].
    Compute,
    /// [`crate::Device::transfer_queue`].
    Transfer,
}

impl QueueKind {
    /// Both kinds, in the order of their numbers.
    pub const ALL: [QueueKind; 2] = [QueueKind::Compute, QueueKind::Transfer];

    /// The other one.
    pub fn other(self) -> QueueKind {
        match self {
            QueueKind::Compute => QueueKind::Transfer,
            QueueKind::Transfer => QueueKind::Compute,
        }
    }

    /// Refuses an op that such a queue does not run.
    pub fn admit(self, op: &Op) -> Result<()> {
        match (self, op) {
            (QueueKind::Compute, _) | (QueueKind::Transfer, Op::Copy(_)) => Ok(()),
            (QueueKind::Transfer, op) => Err(DeviceError::Contract(format!(
                "the transfer queue runs copies only, not {}: record it on the compute queue",
                op.name()
            ))),
        }
    }
}

impl fmt::Display for QueueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QueueKind::Compute => "compute",
            QueueKind::Transfer => "transfer",
        })
    }
}
