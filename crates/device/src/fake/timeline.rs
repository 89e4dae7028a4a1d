use super::log::{Event, Mark};
use super::machine::Machine;
use crate::{DeviceError, Patience, Point, Result, Timeline};
use std::any::Any;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Interval at which a waiter looks whether the device is lost.
const LOOK_UP: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct FakeTimeline {
    number: u64,
    value: Mutex<u64>,
    raised: Condvar,
    machine: Arc<Machine>,
}

impl FakeTimeline {
    pub(super) fn new(machine: Arc<Machine>) -> Self {
        let number = machine.timelines.fetch_add(1, SeqCst);
        Self { number, value: Mutex::default(), raised: Condvar::new(), machine }
    }

    /// Raises the counter, for a queue.
    pub(super) fn raise(&self, value: u64) {
        let mut now = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        *now = value.max(*now);
        self.raised.notify_all();
    }
}

impl Mark {
    /// The mark of a point.
    pub fn of(point: &Point) -> Self {
        let timeline = point.timeline_as::<FakeTimeline>();
        Self { timeline: timeline.map_or(u64::MAX, |timeline| timeline.number), value: point.value }
    }
}

impl Timeline for FakeTimeline {
    fn value(&self) -> u64 {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, value: u64, limit: Duration) -> Result<()> {
        let mut patience = Patience::new(limit);
        let mut now = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        while *now < value {
            self.machine.alive()?;
            let Some(slice) = patience.slice() else {
                return Err(DeviceError::Timeout { value, reached: *now, waited: limit });
            };
            now = self.raised.wait_timeout(now, slice.min(LOOK_UP)).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn signal(&self, value: u64) {
        self.machine.note(Event::Signaled(Mark { timeline: self.number, value }));
        self.raise(value);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
