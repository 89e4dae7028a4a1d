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
mod tests {
    use super::*;

    fn reading(at_ms: u64, busy_ms: u64) -> Reading {
        Reading { at: Duration::from_millis(at_ms), busy: Duration::from_millis(busy_ms) }
    }

    fn watch() -> Utilization {
        let start = reading(0, 0);
        Utilization { window: Duration::from_secs(1), marks: Mutex::new(Marks { from: start, next: start }) }
    }

    #[test]
    fn it_is_busy_time_over_time() {
        let watch = watch();
        assert_eq!(watch.up_to(reading(0, 0)), 0.0);
        assert_eq!(watch.up_to(reading(500, 250)), 0.5);
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let watch = watch();
        for second in 1..=5 {
            watch.up_to(reading(1000 * second, 0));
        }
        let share = watch.up_to(reading(5900, 900));
        assert!((share - 900.0 / 1900.0).abs() < 1e-9, "{share}");
        // A step that has just been counted may have begun before the window.
        assert_eq!(watch.up_to(reading(6000, 9000)), 1.0);
    }
}
