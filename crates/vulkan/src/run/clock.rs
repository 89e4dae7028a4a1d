//! The device's ticks on the host's clock, and for how long the compute queue was busy.

use mlx_serving_device::Times;
use std::time::Duration;

/// Maps ticks: one moment that is known on both clocks, and the length of a tick.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    /// Nanoseconds of a tick.
    period: f64,
    anchor: Option<(u64, Duration)>,
}

impl Clock {
    pub(super) fn new(period: f32) -> Self {
        Self { period: period.into(), anchor: None }
    }

    /// The device's clock showed `ticks` at `time`.
    pub(super) fn set(&mut self, ticks: u64, time: Duration) {
        self.anchor = Some((ticks, time));
    }

    /// Time at which the clock was set last.
    pub(super) fn set_at(&self) -> Option<Duration> {
        self.anchor.map(|(_, time)| time)
    }

    /// The time of `ticks`, of which `bits` count.
    pub(super) fn time(&self, ticks: u64, bits: u32) -> Option<Duration> {
        let (at, time) = self.anchor?;
        let unused = 64 - bits.clamp(1, 64);
        // Sign extension: the ticks may lie on either side of the anchor, and of an overflow.
        let ticks = (ticks.wrapping_sub(at) << unused) as i64 >> unused;
        let distance = Duration::from_nanos((ticks.unsigned_abs() as f64 * self.period) as u64);
        Some(if ticks < 0 { time.saturating_sub(distance) } else { time + distance })
    }

    /// The times of a run that lies within (`handed`, `ended`) for certain. A clock that says otherwise is set right.
    pub(super) fn run(&mut self, ticks: [u64; 2], bits: u32, within: Times) -> Times {
        let (handed, ended) = within;
        let [began, stopped] = ticks;
        match self.time(stopped, bits) {
            Some(time) if time <= ended => {}
            _ => self.set(stopped, ended),
        }
        if self.time(began, bits).is_some_and(|time| time < handed) {
            self.set(began, handed);
        }
        let at = |ticks| self.time(ticks, bits).unwrap_or(ended).clamp(handed, ended);
        (at(began), at(stopped))
    }
}

/// The union of a queue's runs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Busy {
    pub(super) total: Duration,
    until: Duration,
}

impl Busy {
    /// Adds a run, which began no earlier than the ones before; its times without what they cover.
    pub(super) fn add(&mut self, (began, ended): Times) -> Times {
        let began = began.max(self.until);
        let ended = ended.max(began);
        self.total += ended - began;
        self.until = ended;
        (began, ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn ticks_before_and_after_the_anchor_and_over_an_overflow() {
        let mut clock = Clock::new(1000.0);
        assert_eq!(clock.time(5, 64), None);
        clock.set(10_000, ms(100));
        assert_eq!(clock.time(12_000, 64), Some(ms(102)));
        assert_eq!(clock.time(9_000, 64), Some(ms(99)));
        clock.set((1 << 36) - 1000, ms(100));
        assert_eq!(clock.time(1000, 36), Some(ms(102)), "36 bits count");
    }

    #[test]
    fn runs_stay_where_they_must_have_been() {
        let mut clock = Clock::new(1_000_000.0);
        assert_eq!(clock.run([5, 8], 64, (ms(100), ms(110))), (ms(107), ms(110)), "the first run sets the clock");
        assert_eq!(clock.run([9, 12], 64, (ms(110), ms(120))), (ms(111), ms(114)));
        assert_eq!(clock.run([13, 16], 64, (ms(114), ms(117))), (ms(114), ms(117)), "it was late");
        assert_eq!(clock.run([17, 19], 64, (ms(120), ms(130))), (ms(120), ms(122)), "it was early");
        assert_eq!(clock.run([20, 99], 64, (ms(130), ms(131))), (ms(130), ms(131)), "ticks of another length");
    }

    #[test]
    fn overlapping_runs_count_once() {
        let mut busy = Busy::default();
        assert_eq!(busy.add((ms(10), ms(20))), (ms(10), ms(20)));
        assert_eq!(busy.add((ms(15), ms(30))), (ms(20), ms(30)));
        assert_eq!(busy.add((ms(25), ms(28))), (ms(30), ms(30)));
        busy.add((ms(40), ms(41)));
        assert_eq!(busy.total, ms(21));
    }
}
