use std::time::{Duration, Instant};

/// Longest wait before a waiter looks at the time again, and the most that counts of it.
const SLICE: Duration = Duration::from_millis(100);

/// How much longer a waiter waits. Only time in which this process ran counts: one that was stopped (by a debugger, a freezer, a
/// sleeping machine) has not seen its device hang. So waits are cut into slices, and none counts for more than its own length.
#[derive(Debug)]
pub struct Patience {
    left: Duration,
    looked: Instant,
}

impl Patience {
    /// Patience for `limit` from now on.
    pub fn new(limit: Duration) -> Self {
        Self { left: limit, looked: Instant::now() }
    }

    /// Time to wait before asking again; `None` once it is used up.
    pub fn slice(&mut self) -> Option<Duration> {
        self.slice_at(Instant::now())
    }

    fn slice_at(&mut self, now: Instant) -> Option<Duration> {
        self.left = self.left.saturating_sub((now - self.looked).min(SLICE));
        self.looked = now;
        Some(self.left.min(SLICE)).filter(|slice| !slice.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let mut patience = Patience::new(Duration::from_millis(250));
        let mut now = patience.looked;
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
}
