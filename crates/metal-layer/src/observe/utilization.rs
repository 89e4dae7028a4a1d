use mlx_serving_device::Device;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A figure covers at least this long, and less than twice as long.
const WINDOW: Duration = Duration::from_secs(5);

/// Share of the last seconds in which a device ran ops, from its own counters.
#[derive(Debug)]
pub(crate) struct Utilization {
    window: Duration,
    marks: Mutex<Marks>,
}

/// Readings at which the figure now given and the next one begin.
#[derive(Debug, Clone, Copy)]
struct Marks {
    from: Reading,
    next: Reading,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Duration,
    busy: Duration,
}

impl Reading {
    fn of(device: &dyn Device) -> Self {
        Self { at: device.now(), busy: device.counters().busy }
    }

    /// Busy share of the time from here to `later`.
    fn share(self, later: Reading) -> f64 {
        let (busy, time) = (later.busy.saturating_sub(self.busy), later.at.saturating_sub(self.at));
        if time.is_zero() { 0.0 } else { (busy.as_secs_f64() / time.as_secs_f64()).min(1.0) }
    }
}

impl Utilization {
    /// Begins to watch `device`.
    pub(crate) fn new(device: &dyn Device) -> Self {
        let now = Reading::of(device);
        Self { window: WINDOW, marks: Mutex::new(Marks { from: now, next: now }) }
    }

    /// The share up to now.
    pub(crate) fn now(&self, device: &dyn Device) -> f64 {
        self.up_to(Reading::of(device))
    }

    fn up_to(&self, now: Reading) -> f64 {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if now.at.saturating_sub(marks.next.at) >= self.window {
            *marks = Marks { from: marks.next, next: now };
        }
        marks.from.share(now)
    }
}

#[cfg(test)]
mod tests;
