//! Time, and a fixed computation by which the machine's own speed is known.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Rounds of the fixed computation: about 40 ms on a core of 3 GHz, long beside the start of a thread.
const ROUNDS: u64 = 25_000_000;

/// Longest time that a thread which waits a tenth of a second is late by, while its process runs. Beyond it the process was paused: by
/// SIGSTOP, in a frozen container, or with the whole machine. A step that is stuck does not stop the thread that waits for it.
pub(crate) const LATE: Duration = Duration::from_secs(5);

/// Time as a run sees it. Tests have one of their own.
pub trait Clock {
    /// Time since the clock was started.
    fn now(&self) -> Duration;
    /// Lets time pass.
    fn sleep(&self, time: Duration);
    /// Waits until this thread is unparked, at most `limit`.
    fn wait(&self, limit: Duration);
    /// Lets other threads go on for about a millisecond, which need not count.
    fn moment(&self);
    /// Time of a fixed computation on as many threads at once: the machine's own speed, whatever the engine does.
    fn calibrate(&self, threads: usize) -> Duration;
}

/// The system's clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn wait(&self, limit: Duration) {
        std::thread::park_timeout(limit);
    }

    fn moment(&self) {
        std::thread::sleep(Duration::from_millis(1));
    }

    fn calibrate(&self, threads: usize) -> Duration {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(compute);
            }
            compute();
        });
        start.elapsed()
    }
}

/// A chain of multiplications in registers, which no compiler shortens and no cache disturbs.
fn compute() {
    let mut state = black_box(1_u64);
    // No iterator: a build without optimization would time that.
    let mut left = ROUNDS;
    while left > 0 {
        state = (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        left -= 1;
    }
    black_box(state);
}
