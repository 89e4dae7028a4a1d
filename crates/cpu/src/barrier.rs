use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::sync::{Line, wait_until};
use mlx_serving_device::{DeviceError, Result};

/// Meeting point of a pool's workers between ops: two atomic words, no system call while the others are close.
///
/// A worker that fails breaks the barrier instead of coming: all others then leave their job too.
#[derive(Debug)]
pub(crate) struct Barrier {
    members: u32,
    arrived: Line<AtomicU32>,
    round: Line<AtomicU32>,
    broken: Line<AtomicBool>,
}

impl Barrier {
    pub(crate) fn new(members: usize) -> Self {
        Self {
            members: members as u32,
            arrived: Line(AtomicU32::new(0)),
            round: Line(AtomicU32::new(0)),
            broken: Line(AtomicBool::new(false)),
        }
    }

    /// Waits for all members: what each wrote before is visible to all after. Fails if a member broke it.
    pub(crate) fn wait(&self) -> Result<()> {
        self.wait_doing(|| ())
    }

    /// Waits like [`Self::wait`]; runs `idle` first, once all can see that this member has arrived, unless it is the last.
    pub(crate) fn wait_doing(&self, idle: impl FnOnce()) -> Result<()> {
        if self.members > 1 {
            let round = self.round.0.load(Ordering::Relaxed);
            // Acquire and release: the last to arrive collects what all wrote, and hands it on with the round.
            if self.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == self.members {
                self.arrived.0.store(0, Ordering::Relaxed);
                self.round.0.store(round.wrapping_add(1), Ordering::Release);
            } else {
                idle();
                wait_until(|| self.round.0.load(Ordering::Acquire) != round || self.is_broken());
            }
        }
        if self.is_broken() {
            return Err(DeviceError::CommandFailed("another worker stopped".into()));
        }
        Ok(())
    }

    /// Sends every member away, now and at every later wait.
    pub(crate) fn break_up(&self) {
        self.broken.0.store(true, Ordering::Release);
    }

    /// Makes a broken barrier whole again. No member may be near it.
    pub(crate) fn reset(&self) {
        self.arrived.0.store(0, Ordering::Relaxed);
        self.broken.0.store(false, Ordering::Release);
    }

    fn is_broken(&self) -> bool {
        self.broken.0.load(Ordering::Acquire)
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn no_member_runs_ahead() {
        let rounds = if cfg!(miri) { 10 } else { 1000 };
        for members in 1..=4 {
            let barrier = Barrier::new(members);
            let arrivals = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..members {
                    scope.spawn(|| {
                        for round in 0..rounds {
                            arrivals.fetch_add(1, Ordering::Relaxed);
                            barrier.wait().unwrap();
                            assert!(arrivals.load(Ordering::Relaxed) >= members * (round + 1));
                            barrier.wait().unwrap();
                            assert!(arrivals.load(Ordering::Relaxed) <= members * (round + 2));
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn a_break_frees_who_waits_and_a_reset_mends_it() {
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| barrier.wait());
            barrier.break_up();
            assert!(waiter.join().unwrap().is_err());
        });
        assert!(barrier.wait().is_err());
        barrier.reset();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| barrier.wait());
            barrier.wait().unwrap();
            waiter.join().unwrap().unwrap();
        });
    }
}

/// `cargo test -p mlx-serving-cpu --features loom --lib loom`
#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    #[test]
    fn what_was_written_before_is_seen_after() {
        loom::model(|| {
            let shared = Arc::new((Barrier::new(2), UnsafeCell::new(0), UnsafeCell::new(0)));
            let other = shared.clone();
            let worker = loom::thread::spawn(move || {
                let (barrier, mine, theirs) = &*other;
                // SAFETY: each cell has one writer before the barrier and only readers after it, which loom checks.
                mine.with_mut(|value| unsafe { *value = 1 });
                barrier.wait().unwrap();
                // SAFETY: as above.
                theirs.with(|value| unsafe { assert_eq!(*value, 2) });
            });
            let (barrier, theirs, mine) = &*shared;
            // SAFETY: as above.
            mine.with_mut(|value| unsafe { *value = 2 });
            barrier.wait().unwrap();
            // SAFETY: as above.
            theirs.with(|value| unsafe { assert_eq!(*value, 1) });
            worker.join().unwrap();
        });
    }

    #[test]
    fn a_break_reaches_the_other() {
        loom::model(|| {
            let barrier = Arc::new(Barrier::new(2));
            let other = barrier.clone();
            let worker = loom::thread::spawn(move || other.wait().is_err());
            barrier.break_up();
            assert!(worker.join().unwrap());
        });
    }
}
