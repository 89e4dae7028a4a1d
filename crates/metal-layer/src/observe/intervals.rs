use mlx_serving_device::Submission;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Intervals that are kept: some seconds of steps of a small model, about 130 KiB.
const KEPT: usize = 2048;

/// Work of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// A step on the compute queue.
    Step,
    /// Bytes that the blit queue moved to the device.
    Upload,
    /// Bytes that the blit queue moved from the device.
    Download,
}

/// Interval in which a device worked, on its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Work that was done.
    pub activity: Activity,
    /// Begin. A step begins with its first op.
    pub from: Duration,
    /// End. A step ends with its last op; where it waited for copies in between, that time is within.
    pub to: Duration,
    /// Time of a copy during which the compute queue ran ops, by the device's counter; zero for a step.
    pub overlapped: Duration,
    /// Bytes that were moved; 0 for a step.
    pub bytes: u64,
}

/// Recorder of the last steps and copies, for pictures of them. Clones record into the same ring.
#[derive(Debug, Clone, Default)]
pub struct Intervals {
    ring: Arc<Mutex<VecDeque<Interval>>>,
}

impl Intervals {
    /// Records an interval, in the place of the oldest if there is no room.
    pub(crate) fn note(&self, interval: Interval) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(interval);
    }

    /// Records a step that has ended, where the device has timestamps.
    pub(crate) fn note_step(&self, step: &dyn Submission) {
        if let Some((from, to)) = step.times() {
            self.note(Interval { activity: Activity::Step, from, to, overlapped: Duration::ZERO, bytes: 0 });
        }
    }

    /// The intervals that are kept, in the order of their ends as they were seen.
    pub fn all(&self) -> Vec<Interval> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        let intervals = Intervals::default();
        for n in 0..KEPT as u64 + 3 {
            let at = Duration::from_nanos(n);
            let copy = Interval { activity: Activity::Upload, from: at, to: at, overlapped: Duration::ZERO, bytes: n };
            intervals.clone().note(copy);
        }
        let kept = intervals.all();
        assert_eq!((kept.len(), kept[0].bytes, kept[KEPT - 1].bytes), (KEPT, 3, KEPT as u64 + 2));
    }
}
