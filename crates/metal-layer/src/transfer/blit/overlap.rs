use mlx_serving_device::Device;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Share of the transfers' time in which the compute queue was busy: both from the device's own clock and counter of busy time,
/// read when the first of the transfers in flight begins and when the last of them ends.
#[derive(Debug)]
pub(crate) struct Overlap {
    device: Arc<dyn Device>,
    times: Mutex<OverlapTimes>,
}

#[derive(Debug, Default)]
struct OverlapTimes {
    in_flight: usize,
    /// The clock and the busy time when the transfers in flight began.
    began: (Duration, Duration),
    moving: Duration,
    overlapped: Duration,
}

impl Overlap {
    pub(crate) fn new(device: Arc<dyn Device>) -> Self {
        Self { device, times: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, OverlapTimes> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> (Duration, Duration) {
        (self.device.now(), self.device.counters().busy)
    }

    /// Notes that bytes begin to move.
    pub(crate) fn begin(&self) {
        let mut times = self.lock();
        if times.in_flight == 0 {
            times.began = self.read();
        }
        times.in_flight += 1;
    }

    /// Notes that the bytes of a [`Self::begin`] have moved.
    pub(crate) fn end(&self) {
        let mut times = self.lock();
        times.in_flight -= 1;
        if times.in_flight == 0 {
            (times.moving, times.overlapped) = times.totals(self.read());
        }
    }

    /// Forgets the times so far; a transfer in flight counts from now on.
    pub(crate) fn reset(&self) {
        let mut times = self.lock();
        *times = OverlapTimes { in_flight: times.in_flight, began: self.read(), ..OverlapTimes::default() };
    }

    /// Runs `moves`, which moves bytes, and counts the time that it takes.
    pub(crate) fn during<T>(&self, moves: impl FnOnce() -> T) -> T {
        struct Moving<'a>(&'a Overlap);
        impl Drop for Moving<'_> {
            fn drop(&mut self) {
                self.0.end();
            }
        }
        self.begin();
        let _moving = Moving(self);
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
    fn totals(&self, (now, busy): (Duration, Duration)) -> (Duration, Duration) {
        let moving = now.saturating_sub(self.began.0);
        let overlapped = busy.saturating_sub(self.began.1).min(moving);
        (self.moving + moving, self.overlapped + overlapped)
    }
}
