use super::log::Event;
use super::state::{Settings, State};
use std::sync::Arc;
use std::time::Duration;

/// One of a device's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueKind {
    /// [`crate::Device::compute_queue`].
    Compute,
    /// [`crate::Device::transfer_queue`].
    Transfer,
}

/// Time that things take beyond the work itself. All zero by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// The host, for recording an op.
    pub record: Duration,
    /// The host, for finishing a command buffer.
    pub finish: Duration,
    /// The device, for a command buffer with any op but [`crate::Op::Copy`], once.
    pub execute: Duration,
    /// The device, for every op but [`crate::Op::Copy`].
    pub op: Duration,
    /// Bytes that either queue copies in a second; as fast as memory without a number.
    pub copy_bytes_per_second: Option<u64>,
}

/// Those of the coming events that a fault strikes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fault {
    /// Events that it lets pass first.
    skip: u64,
    /// Events that it strikes after that.
    strikes: u64,
}

impl Fault {
    /// None.
    pub const NEVER: Fault = Fault { skip: 0, strikes: 0 };
    /// All from now on.
    pub const ALWAYS: Fault = Fault { skip: 0, strikes: u64::MAX };

    /// The next `count`.
    pub fn next(count: u64) -> Self {
        Self { skip: 0, strikes: count }
    }

    /// Only the `n`-th from now, counted from 1.
    pub fn nth(n: u64) -> Self {
        Self { skip: n.saturating_sub(1), strikes: 1 }
    }

    /// Counts an event; whether it is struck.
    pub(super) fn strikes(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let strikes = self.strikes > 0;
        if strikes && self.strikes != u64::MAX {
            self.strikes -= 1;
        }
        strikes
    }
}

/// Steers a [`super::FakeDevice`] while it runs. Clones steer the same device.
#[derive(Debug, Clone)]
pub struct FakeControl {
    pub(super) state: Arc<State>,
}

impl FakeControl {
    /// Replaces all latencies.
    pub fn set_latency(&self, latency: Latency) {
        self.set(|s| s.latency = latency);
    }

    /// Heaps and dedicated buffers that are refused with [`crate::DeviceError::OutOfMemory`].
    pub fn refuse_allocations(&self, fault: Fault) {
        self.set(|s| s.allocations = fault);
    }

    /// Copies of a queue that end their command buffer with [`crate::DeviceError::CommandFailed`].
    pub fn fail_copies(&self, queue: QueueKind, fault: Fault) {
        self.set(|s| s.queue(queue).fail_copies = fault);
    }

    /// Copies of a queue that write one wrong byte and say nothing.
    pub fn corrupt_copies(&self, queue: QueueKind, fault: Fault) {
        self.set(|s| s.queue(queue).corrupt_copies = fault);
    }

    /// Submissions to a queue that fail with [`crate::DeviceError::CommandFailed`] before their first op.
    pub fn fail_submissions(&self, queue: QueueKind, fault: Fault) {
        self.set(|s| s.queue(queue).fail = fault);
    }

    /// Submissions to a queue that hang before their first op, and everything behind them, until [`Self::release`].
    pub fn hang_submissions(&self, queue: QueueKind, fault: Fault) {
        self.set(|s| s.queue(queue).hang = fault);
    }

    /// Lets all that hangs go on, and lets nothing hang from now on.
    pub fn release(&self) {
        self.set(|s| {
            s.releases += 1;
            s.compute.hang = Fault::NEVER;
            s.transfer.hang = Fault::NEVER;
        });
    }

    /// Submissions to a queue whose points are never signaled, though they run.
    pub fn drop_signals(&self, queue: QueueKind, fault: Fault) {
        self.set(|s| s.queue(queue).drop_signal = fault);
    }

    /// Loses the device: every later call and every pending submission fails with [`crate::DeviceError::Lost`].
    pub fn lose(&self, reason: &str) {
        self.set(|s| s.lost = Some(reason.to_owned()));
    }

    /// The events so far, oldest first; the oldest of very many are forgotten.
    pub fn log(&self) -> Vec<Event> {
        self.state.events()
    }

    /// Forgets what has happened.
    pub fn clear_log(&self) {
        self.state.clear_events();
    }

    fn set(&self, change: impl FnOnce(&mut Settings)) {
        self.state.change(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_strike_whom_they_name() {
        let struck = |mut fault: Fault| (1..=5).filter(|_| fault.strikes()).count();
        assert_eq!((struck(Fault::NEVER), struck(Fault::ALWAYS), struck(Fault::next(2))), (0, 5, 2));
        let mut third = Fault::nth(3);
        assert_eq!((1..=5).filter(|_| third.strikes()).collect::<Vec<_>>(), [3]);
    }
}
