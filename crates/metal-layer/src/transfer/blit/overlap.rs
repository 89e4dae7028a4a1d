use crate::observe::intervals::{Interval, Intervals};
use crate::transfer::direction::Direction;
use mlx_serving_device::Device;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Share of the transfers' time in which the compute queue was busy: both from the device's own clock and counter of busy time,
/// read when the first of the transfers in flight begins and when the last of them ends. Each transfer's own times are recorded too.
#[derive(Debug)]
pub(crate) struct Overlap {
    device: Arc<dyn Device>,
    intervals: Intervals,
    times: Mutex<OverlapTimes>,
}

/// The device's clock, and the compute queue's busy time then.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reading {
    now: Duration,
    busy: Duration,
}

#[derive(Debug, Default)]
struct OverlapTimes {
    in_flight: usize,
    /// Reading when the transfers in flight began.
    began: Reading,
    moving: Duration,
    overlapped: Duration,
}

impl Overlap {
    pub(crate) fn new(device: Arc<dyn Device>, intervals: Intervals) -> Self {
        Self { device, intervals, times: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, OverlapTimes> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Reading {
        Reading { now: self.device.now(), busy: self.device.counters().busy }
    }

    /// Notes that bytes begin to move; gives the reading then, for [`Self::end`].
    pub(crate) fn begin(&self) -> Reading {
        let mut times = self.lock();
        let began = self.read();
        if times.in_flight == 0 {
            times.began = began;
        }
        times.in_flight += 1;
        began
    }

    /// Notes that the bytes of a [`Self::begin`] have moved.
    pub(crate) fn end(&self, began: Reading, direction: Direction, bytes: u64) {
        let mut times = self.lock();
        let ended = self.read();
        times.in_flight -= 1;
        if times.in_flight == 0 {
            (times.moving, times.overlapped) = times.totals(ended);
        }
        drop(times);
        let (_, overlapped) = ended.since(began);
        let activity = direction.activity();
        self.intervals.note(Interval { activity, from: began.now, to: ended.now, overlapped, bytes });
    }

    /// Forgets the times so far; a transfer in flight counts from now on.
    pub(crate) fn reset(&self) {
        let mut times = self.lock();
        *times = OverlapTimes { in_flight: times.in_flight, began: self.read(), ..OverlapTimes::default() };
    }

    /// Runs `moves`, which moves bytes, and counts the time that it takes.
    pub(crate) fn during<T>(&self, direction: Direction, bytes: u64, moves: impl FnOnce() -> T) -> T {
        struct Moving<'a>(&'a Overlap, Reading, Direction, u64);
        impl Drop for Moving<'_> {
            fn drop(&mut self) {
                self.0.end(self.1, self.2, self.3);
            }
        }
        let _moving = Moving(self, self.begin(), direction, bytes);
        moves()
    }

    /// Share of the time during which bytes moved that the compute queue ran ops; 0 before any have.
    pub(crate) fn ratio(&self) -> f64 {
        let times = self.lock();
        let (moving, overlapped) =
            if times.in_flight > 0 { times.totals(self.read()) } else { (times.moving, times.overlapped) };
        if moving.is_zero() { 0.0 } else { overlapped.as_secs_f64() / moving.as_secs_f64() }
    }
}

impl OverlapTimes {
    fn totals(&self, now: Reading) -> (Duration, Duration) {
        let (moving, overlapped) = now.since(self.began);
        (self.moving + moving, self.overlapped + overlapped)
    }
}

impl Reading {
    /// Time since an earlier reading, and the part of it in which ops ran.
    fn since(self, earlier: Reading) -> (Duration, Duration) {
        let time = self.now.saturating_sub(earlier.now);
        (time, self.busy.saturating_sub(earlier.busy).min(time))
    }
}
