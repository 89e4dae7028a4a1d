use crate::{DeviceError, Op, Point, Result, Times};
use std::any::Any;
use std::fmt;
use std::sync::Arc;
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
    /// For the backend's downcast.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
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
    /// All ops have run.
    Completed,
    /// It ended in error; its point was signaled all the same.
    Failed(DeviceError),
}

/// A command buffer in flight.
pub trait Submission: fmt::Debug + Send + Sync {
    /// Its state.
    fn status(&self) -> Status;
    /// Blocks until it has ended; its error if it failed, [`DeviceError::Timeout`] if it has not ended in time
    /// ([`crate::Patience`]).
    fn wait(&self, limit: Duration) -> Result<()>;
    /// Device timestamps of its first and last op, on the clock of [`crate::Device::now`]; `None` before it has ended, or where
    /// the device has no timestamps.
    fn times(&self) -> Option<Times>;
}
