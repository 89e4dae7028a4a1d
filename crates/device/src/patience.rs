use std::time::{Duration, Instant};

/// Longest wait before a waiter looks at the time again, and the most that counts of it.
const SLICE: Duration = Duration::from_millis(100);

/// Time in which this process ran. One that was stopped (by a debugger, a freezer, a sleeping machine) has not seen its device
/// hang, so whoever measures looks often, and no interval between two looks counts for more than it should have lasted.
#[derive(Debug)]
pub struct RunningTime {
    counted: Duration,
    looked: Instant,
    longest: Duration,
}

impl RunningTime {
    /// Zero from now on; between two looks, `longest` counts at most.
    pub fn new(longest: Duration) -> Self {
        Self { counted: Duration::ZERO, looked: Instant::now(), longest }
    }

    /// The time that counts up to `now`.
    pub fn read(&self, now: Instant) -> Duration {
        self.counted + now.saturating_duration_since(self.looked).min(self.longest)
    }

    /// Reads the time that counts up to `now`, as one of the looks.
    pub fn look(&mut self, now: Instant) -> Duration {
        self.counted = self.read(now);
        self.looked = self.looked.max(now);
        self.counted
    }
}

/// Remaining time of a waiter, counted as [`RunningTime`]: waits are cut into slices, between which it looks.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    ran: RunningTime,
}

impl Patience {
    /// Patience for `limit` from now on.
    pub fn new(limit: Duration) -> Self {
        Self { limit, ran: RunningTime::new(SLICE) }
    }

    /// Time to wait before asking again; `None` once it is used up.
    pub fn slice(&mut self) -> Option<Duration> {
        self.slice_at(Instant::now())
    }

    fn slice_at(&mut self, now: Instant) -> Option<Duration> {
        let left = self.limit.saturating_sub(self.ran.look(now));
        Some(left.min(SLICE)).filter(|slice| !slice.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let mut patience = Patience::new(Duration::from_millis(250));
        let mut now = patience.ran.looked;
        assert_eq!(patience.slice_at(now), Some(SLICE));
        now += Duration::from_secs(3600);
        assert_eq!(patience.slice_at(now), Some(SLICE), "150 ms are left");
        now += Duration::from_millis(60);
        assert_eq!(patience.slice_at(now), Some(Duration::from_millis(90)));
        now += Duration::from_millis(90);
        assert_eq!(patience.slice_at(now), None);
        assert_eq!(patience.slice_at(now), None, "it stays at its end");
    }

    #[test]
    fn no_limit_is_too_long_or_too_short() {
        assert_eq!(Patience::new(Duration::ZERO).slice(), None);
        assert_eq!(Patience::new(Duration::MAX).slice(), Some(SLICE));
    }

    #[test]
    fn a_look_that_comes_late_or_in_another_order_counts_nothing_twice() {
        const TICK: Duration = Duration::from_millis(250);
        let mut ran = RunningTime::new(2 * TICK);
        let begin = ran.looked;
        for tick in 1..=8 {
            assert_eq!(ran.look(begin + tick * TICK), tick * TICK);
        }
        assert_eq!(ran.look(begin + 7 * TICK), 8 * TICK, "one that was taken before the last");
        assert_eq!(ran.read(begin + 9 * TICK), 9 * TICK);
        let after_an_hour = begin + Duration::from_secs(3600);
        assert_eq!(ran.read(after_an_hour), 10 * TICK);
        assert_eq!(ran.look(after_an_hour), 10 * TICK);
        assert_eq!(ran.read(after_an_hour + TICK), 11 * TICK);
    }
}
