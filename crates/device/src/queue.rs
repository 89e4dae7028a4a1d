use crate::{DeviceError, Op, Point, QueueKind, Result};
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Records ops for one command buffer.
pub trait Encoder: Send {
    /// Appends an op. Shapes are checked here ([`Op::validate`]), so a recorded command buffer fails only for the device's
    /// reasons.
    fn record(&mut self, op: Op) -> Result<()>;
    /// Makes the ops recorded after this call wait on the device for `point`; the host does not.
    fn wait(&mut self, point: Point) -> Result<()>;
    /// Ends recording.
    fn finish(self: Box<Self>) -> Result<Box<dyn CommandBuffer>>;
}

/// A recorded command buffer, good for one submission.
pub trait CommandBuffer: Send {
    /// The queue whose encoder recorded it.
    fn queue(&self) -> QueueId;
    /// Returns `self` as [`Any`], for the backend to downcast.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

/// A queue of one device, as its command buffers know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueId {
    /// Number of the device, in this process.
    device: u64,
    /// Kind of the queue.
    pub kind: QueueKind,
}

impl QueueId {
    /// The two queues of a new device, in the order of [`QueueKind::ALL`].
    pub fn of_new_device() -> [Self; 2] {
        static DEVICES: AtomicU64 = AtomicU64::new(0);
        let device = DEVICES.fetch_add(1, Relaxed);
        QueueKind::ALL.map(|kind| Self { device, kind })
    }

    /// Takes a command buffer for submission, as the backend's own type.
    ///
    /// # Errors
    /// [`DeviceError::Contract`] if it was recorded on another device or for the other queue.
    pub fn take<C: CommandBuffer + 'static>(self, commands: Box<dyn CommandBuffer>) -> Result<Box<C>> {
        let (recorded, kind) = (commands.queue(), self.kind);
        if recorded.device == self.device && recorded.kind != kind {
            return Err(DeviceError::Contract(format!(
                "a command buffer recorded for the {} queue was submitted to the {kind} queue",
                recorded.kind
            )));
        }
        let own = if recorded == self { commands.into_any().downcast().ok() } else { None };
        own.ok_or_else(|| {
            DeviceError::Contract(format!("a command buffer of another device was submitted to the {kind} queue"))
        })
    }
}

/// A queue of command buffers, run in order.
pub trait Queue: fmt::Debug + Send + Sync {
    /// Starts a command buffer for this queue.
    fn encoder(&self) -> Result<Box<dyn Encoder>>;
    /// Submits: waits for `waits` on the device, runs the ops, signals `signal`. Does not block the host.
    fn submit(
        &self,
        commands: Box<dyn CommandBuffer>,
        waits: &[Point],
        signal: Option<Point>,
    ) -> Result<Arc<dyn Submission>>;
}

/// State of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Waiting or running.
    Pending,
    /// Ended well: all ops have run.
    Completed,
    /// Ended in error; its point was signaled all the same.
    Failed(DeviceError),
}

/// First and last moment of a run, on the device's clock.
pub type Times = (Duration, Duration);

/// A command buffer in flight.
pub trait Submission: fmt::Debug + Send + Sync {
    /// State of the submission.
    fn status(&self) -> Status;
    /// Blocks until the submission has ended; returns its error if it failed, [`DeviceError::Timeout`] if it has not ended in time
    /// ([`crate::Patience`]).
    fn wait(&self, limit: Duration) -> Result<()>;
    /// Device timestamps of its first and last op, on the clock of [`crate::Device::now`]; `None` before it has ended, or where
    /// the device has no timestamps.
    fn times(&self) -> Option<Times>;
}
