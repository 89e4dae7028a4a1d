use crate::apple::objects::{Object, refused};
use mlx_serving_device::{DeviceError, Patience, Point, Result, Timeline};
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLDevice, MTLEvent, MTLSharedEvent};
use std::any::Any;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A timeline: a shared event that command buffers wait for and signal on the device, and beside it the value that the host sees.
///
/// The host's value follows the event's. The device signals the event with a command buffer's last op, and other queues go on at once;
/// the host's value rises when the submission has been retired, because its memory must be released and its end show first. What
/// the host signals, and what a failed command buffer leaves unsignaled, raises both.
#[derive(Debug)]
pub(crate) struct MetalTimeline {
    event: Object<dyn MTLSharedEvent>,
    reached: Mutex<u64>,
    raised: Condvar,
}

impl MetalTimeline {
    pub(crate) fn new(device: &ProtocolObject<dyn MTLDevice>) -> Result<Self> {
        let event = device.newSharedEvent().ok_or_else(|| refused("shared event"))?;
        Ok(Self { event, reached: Mutex::new(0), raised: Condvar::new() })
    }

    /// Event for encoding waits and signals.
    pub(crate) fn event(&self) -> &ProtocolObject<dyn MTLEvent> {
        ProtocolObject::from_ref(&*self.event)
    }

    /// Lets the device's waiters for `value` go on, and none of the host's.
    pub(crate) fn release_device(&self, value: u64) {
        let _reached = self.lock();
        self.lift(value);
    }

    /// Raises the event. The device may raise it further between the question and the answer, and so be set back: the command
    /// buffer that did it raises the event again when it is retired.
    fn lift(&self, value: u64) {
        if self.event.signaledValue() < value {
            self.event.setSignaledValue(value);
        }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timeline for MetalTimeline {
    fn value(&self) -> u64 {
        *self.lock()
    }

    fn wait(&self, value: u64, limit: Duration) -> Result<()> {
        let mut patience = Patience::new(limit);
        let mut reached = self.lock();
        while *reached < value {
            let Some(slice) = patience.slice() else {
                return Err(DeviceError::Timeout { value, reached: *reached, waited: limit });
            };
            reached = self.raised.wait_timeout(reached, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn signal(&self, value: u64) {
        let mut reached = self.lock();
        *reached = value.max(*reached);
        self.lift(*reached);
        self.raised.notify_all();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A point on a timeline of this backend.
#[derive(Debug, Clone)]
pub(crate) struct MetalPoint(Point);

impl MetalPoint {
    /// Refuses timelines of other devices.
    pub(crate) fn new(point: Point) -> Result<Self> {
        point.timeline_as::<MetalTimeline>()?;
        Ok(Self(point))
    }

    pub(crate) fn timeline(&self) -> &MetalTimeline {
        self.0.timeline_as().expect("checked when the point was made")
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.value
    }

    /// True once the host sees the value.
    pub(crate) fn reached(&self) -> bool {
        self.0.reached()
    }
}
