use mlx_serving_device::Device;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Share of the transfers' time in which the compute queue was busy: both from the device's own clock and counter of busy time,
/// read when the first of the transfers under way begins and when the last of them ends.
#[derive(Debug)]
pub(crate) struct Overlap {
    device: Arc<dyn Device>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    /// The clock and the busy time when the transfers under way began.
    began: (Duration, Duration),
    moving: Duration,
    overlapped: Duration,
}

impl Overlap {
    pub(crate) fn new(device: Arc<dyn Device>) -> Self {
        Self { device, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> (Duration, Duration) {
        (self.device.now(), self.device.counters().busy)
    }

    /// Bytes begin to move.
    pub(crate) fn begin(&self) {
        let mut state = self.lock();
        if state.under_way == 0 {
            state.began = self.read();
        }
        state.under_way += 1;
    }

    /// They have moved.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.under_way -= 1;
        if state.under_way == 0 {
            (state.moving, state.overlapped) = state.totals(self.read());
        }
    }

    /// Moves bytes.
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
        let state = self.lock();
        let (moving, overlapped) =
            if state.under_way > 0 { state.totals(self.read()) } else { (state.moving, state.overlapped) };
        if moving.is_zero() { 0.0 } else { overlapped.as_secs_f64() / moving.as_secs_f64() }
    }
}

impl State {
    fn totals(&self, (now, busy): (Duration, Duration)) -> (Duration, Duration) {
        let moving = now.saturating_sub(self.began.0);
        let overlapped = busy.saturating_sub(self.began.1).min(moving);
        (self.moving + moving, self.overlapped + overlapped)
    }
}
