use crate::{DeviceError, Result};
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A counter that only rises, shared by queues and host: `MTLSharedEvent`, a Vulkan timeline semaphore, a futex-like word.
pub trait Timeline: fmt::Debug + Send + Sync + 'static {
    /// The value reached so far.
    fn value(&self) -> u64;
    /// Blocks the host until `value` is reached, or fails with [`crate::DeviceError::Timeout`]
    /// ([`crate::Patience`]).
    fn wait(&self, value: u64, limit: Duration) -> Result<()>;
    /// Raises the counter from the host. A lower value than the current one changes nothing.
    fn signal(&self, value: u64);
    /// Returns `self` as [`Any`], for the backend to downcast.
    fn as_any(&self) -> &dyn Any;
}

/// A value on a timeline: something that has happened once the timeline reaches it.
#[derive(Debug, Clone)]
pub struct Point {
    /// The timeline.
    pub timeline: Arc<dyn Timeline>,
    /// The value on it.
    pub value: u64,
}

impl Point {
    /// True once the timeline has reached the value.
    pub fn reached(&self) -> bool {
        self.timeline.value() >= self.value
    }
    /// The timeline, as the backend's own type.
    ///
    /// # Errors
    /// [`DeviceError::Contract`] if it is another device's.
    pub fn timeline_as<T: Timeline>(&self) -> Result<&T> {
        self.timeline.as_any().downcast_ref().ok_or_else(|| self.foreign())
    }
    /// Refusal of a point on another device's timeline.
    pub fn foreign(&self) -> DeviceError {
        DeviceError::Contract(format!("{self:?} belongs to another device"))
    }
    /// Blocks the host until the point is reached.
    pub fn wait(&self, limit: Duration) -> Result<()> {
        self.timeline.wait(self.value, limit)
    }
}
