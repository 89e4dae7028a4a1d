//! The atomics of the barrier, which loom can replace.

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic;
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic;

use std::time::{Duration, Instant};

/// Rounds of pure spinning: some ten microseconds, longer than most steps are apart. Not measured. Few under Miri, which takes so long for
/// each that its threads would never get to sleep.
const SPINS: u32 = if cfg!(miri) { 4 } else { 4000 };
/// Time for which a waiter keeps a core, offering it to others all the while. Not measured.
const AWAKE: Duration = Duration::from_micros(200);
/// Time that a waiter sleeps at a time after that. Not measured.
#[cfg(not(feature = "loom"))]
const NAP: Duration = Duration::from_micros(50);

/// Waits until `done`, for others that are at work: spins, then yields, and after [`AWAKE`] naps, so that a core short of
/// threads is never held up by a waiter.
#[cfg(not(feature = "loom"))]
pub(crate) fn wait_until(done: impl Fn() -> bool) {
    if !awake_until(&done) {
        while !done() {
            std::thread::sleep(NAP);
        }
    }
}

/// Model checking has no time.
#[cfg(feature = "loom")]
pub(crate) fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        loom::thread::yield_now();
    }
}

/// Waits like [`wait_until`], but gives up when the time to stay awake is over; true if `done`.
pub(crate) fn awake_until(done: impl Fn() -> bool) -> bool {
    for _ in 0..SPINS {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    let began = Instant::now();
    while began.elapsed() < AWAKE {
        if done() {
            return true;
        }
        std::thread::yield_now();
    }
    done()
}

/// A value on cache lines of its own (two, because they are fetched in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Line<T>(pub(crate) T);
