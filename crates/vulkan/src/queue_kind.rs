/// One of a device's two queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueKind {
    Compute,
    Transfer,
}

impl QueueKind {
    pub(crate) const ALL: [QueueKind; 2] = [QueueKind::Compute, QueueKind::Transfer];

    pub(crate) fn other(self) -> QueueKind {
        match self {
            QueueKind::Compute => QueueKind::Transfer,
            QueueKind::Transfer => QueueKind::Compute,
        }
    }
}
