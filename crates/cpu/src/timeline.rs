use mlx_serving_device::{DeviceError, Patience, Result, Timeline};
use std::any::Any;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Rounds of looking at the value before a waiter sleeps: a few microseconds. Not measured.
const SPINS: u32 = 200;

/// A futex-like counter: readers look at one word, and only a waiter that sleeps makes a signal take the lock.
#[derive(Debug, Default)]
pub(crate) struct CpuTimeline {
    value: AtomicU64,
    sleepers: AtomicU32,
    lock: Mutex<()>,
    raised: Condvar,
}

impl Timeline for CpuTimeline {
    fn value(&self) -> u64 {
        self.value.load(SeqCst)
    }

    fn wait(&self, value: u64, limit: Duration) -> Result<()> {
        for _ in 0..SPINS {
            if self.value() >= value {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        let mut patience = Patience::new(limit);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // SeqCst on both words: either the signal sees this sleeper, or this sleeper sees the value.
        self.sleepers.fetch_add(1, SeqCst);
        let mut outcome = Ok(());
        while self.value() < value {
            let Some(slice) = patience.slice() else {
                outcome = Err(DeviceError::Timeout { value, reached: self.value(), waited: limit });
                break;
            };
            guard = self.raised.wait_timeout(guard, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.sleepers.fetch_sub(1, SeqCst);
        outcome
    }

    fn signal(&self, value: u64) {
        self.value.fetch_max(value, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.raised.notify_all();
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn never_falls() {
        let timeline = CpuTimeline::default();
        timeline.signal(5);
        timeline.signal(3);
        assert_eq!(timeline.value(), 5);
        timeline.wait(4, Duration::ZERO).unwrap();
    }

    #[test]
    fn says_how_far_it_came_when_time_is_up() {
        let timeline = CpuTimeline::default();
        timeline.signal(2);
        let error = timeline.wait(3, Duration::from_millis(1)).unwrap_err();
        assert!(matches!(error, DeviceError::Timeout { value: 3, reached: 2, .. }), "{error}");
        assert_eq!(timeline.sleepers.load(SeqCst), 0);
    }

    #[test]
    fn wakes_every_sleeper() {
        let timeline = Arc::new(CpuTimeline::default());
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (1..=8)
                .map(|value| {
                    let timeline = timeline.clone();
                    scope.spawn(move || timeline.wait(value, Duration::from_secs(60)))
                })
                .collect();
            while timeline.sleepers.load(SeqCst) < 8 {
                std::thread::yield_now();
            }
            (1..=8).for_each(|value| timeline.signal(value));
            assert!(waiters.into_iter().all(|w| w.join().unwrap().is_ok()));
        });
    }
}
