use crate::{QueueKind, Storage};

/// A point on a timeline, to compare: the timeline's number in order of making, and the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Number of the timeline; `u64::MAX` for one of another device.
    pub timeline: u64,
    /// Value on the timeline.
    pub value: u64,
}

/// Something that happened on a [`super::FakeDevice`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A heap or a dedicated buffer was allocated.
    Allocated {
        /// Length.
        bytes: u64,
        /// Storage.
        storage: Storage,
        /// True for a heap, false for a buffer.
        heap: bool,
    },
    /// An allocation was refused.
    Refused {
        /// Length asked for.
        bytes: u64,
    },
    /// An allocation's last view went.
    Freed {
        /// Length.
        bytes: u64,
    },
    /// A command buffer was submitted.
    Submitted {
        /// Queue to which it was submitted.
        queue: QueueKind,
        /// Number of the submission, over both queues.
        submission: u64,
        /// [`crate::Op::name`] of its ops, with `"Wait"` where the encoder was told to wait.
        ops: Vec<&'static str>,
        /// Bytes that its copies copy.
        copied: u64,
        /// Points that it waits for: the submission's points, then the encoder's.
        waits: Vec<Mark>,
        /// The point that it signals.
        signal: Option<Mark>,
    },
    /// A submission ended; said before anybody else learns of it.
    Ended {
        /// Number of the submission.
        submission: u64,
        /// True if it completed.
        completed: bool,
    },
    /// The host signaled a timeline.
    Signaled(Mark),
}
