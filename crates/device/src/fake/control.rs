use super::log::Event;
use super::machine::{Machine, Settings};
use super::options::{Fault, Latency};
use crate::QueueKind;
use std::sync::Arc;

/// Steers a [`super::FakeDevice`] while it runs. Clones steer the same device.
#[derive(Debug, Clone)]
pub struct FakeControl {
    pub(super) machine: Arc<Machine>,
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
        self.machine.events()
    }

    /// Forgets what has happened.
    pub fn clear_log(&self) {
        self.machine.clear_events();
    }

    fn set(&self, change: impl FnOnce(&mut Settings)) {
        self.machine.change(change);
    }
}
