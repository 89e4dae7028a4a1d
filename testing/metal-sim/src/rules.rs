//! Broken rules: each is recorded with the call that broke it and fails the process; the thread that made the call panics.

use crate::runtime::{self, lock};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static VIOLATIONS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Rules broken so far, as `call: what was wrong`, oldest first.
pub fn violations() -> Vec<String> {
    lock(&VIOLATIONS).clone()
}

/// Takes the broken rules out of the record: for tests that break one on purpose.
pub fn take_violations() -> Vec<String> {
    std::mem::take(&mut lock(&VIOLATIONS))
}

/// Objects and blocks that are alive, as `class #serial`. Call [`crate::drain`] first: a queue's worker holds on to the
/// command buffer that it is finishing.
pub fn leaks() -> Vec<String> {
    let mut leaks = runtime::objects::live();
    let blocks = runtime::blocks::live();
    if blocks > 0 {
        leaks.push(format!("{blocks} blocks"));
    }
    leaks
}

static LEAKS_FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// Makes the process fail at its end if an object or a block is still alive then: for tests that hold none in statics.
pub fn forbid_leaks() {
    LEAKS_FORBIDDEN.store(true, Ordering::Relaxed);
}

/// Records a broken rule, for a caller who fails in another way.
pub(crate) fn record(call: &str, what: &str) -> String {
    let message = format!("{call}: {what}");
    lock(&VIOLATIONS).push(message.clone());
    message
}

/// Records a broken rule and panics, unless the thread is panicking already.
#[track_caller]
pub(crate) fn broken(call: &str, what: &str) {
    let message = record(call, what);
    if !std::thread::panicking() {
        panic!("metal-sim: {message}");
    }
}

/// Breaks the rule unless `holds`.
#[track_caller]
pub(crate) fn require(holds: bool, call: &str, what: impl FnOnce() -> String) {
    if !holds {
        broken(call, &what());
    }
}

/// Makes the process fail at its end if rules were broken and nobody took the record.
pub(crate) fn report_at_exit() {
    extern "C" fn report() {
        if LEAKS_FORBIDDEN.load(Ordering::Relaxed) {
            let idle = crate::metal::is_idle_within(Duration::from_secs(5));
            let leaks = leaks();
            if idle && !leaks.is_empty() {
                lock(&VIOLATIONS).push(format!("exit: {} objects are alive: {leaks:?}", leaks.len()));
            }
        }
        let violations = take_violations();
        if !violations.is_empty() {
            eprintln!("metal-sim: {} rules were broken:", violations.len());
            for violation in &violations {
                eprintln!("  {violation}");
            }
            // SAFETY: ends the process at once, which is what is wanted here.
            unsafe { libc::_exit(101) };
        }
    }
    // SAFETY: `report` is a plain function that lives as long as the process.
    unsafe { libc::atexit(report) };
}
