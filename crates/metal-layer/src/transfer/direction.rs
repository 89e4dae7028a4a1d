use crate::observe::intervals::Activity;
use crate::observe::stats::BlitStats;
use std::time::Duration;

/// Direction in which a transfer moves bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the host to the buffers of the device.
    Upload,
    /// From the buffers of the device to the host.
    Download,
}

impl Direction {
    /// The work that a device's record of intervals has for it.
    pub(crate) fn activity(self) -> Activity {
        match self {
            Direction::Upload => Activity::Upload,
            Direction::Download => Activity::Download,
        }
    }

    /// Counts a transfer of `bytes` that has ended.
    pub(crate) fn count(self, stats: &mut BlitStats, bytes: u64, took: Duration) {
        match self {
            Direction::Upload => stats.upload(bytes, took),
            Direction::Download => stats.download(bytes, took),
        }
    }
}
