//! The Objective-C runtime: the C functions that `objc2` and `block2` call under their gnustep features.
//!
//! Nothing outside looks into a class or an object, so their layouts are this module's own. Every method is called with the
//! plain C calling convention through the pointer that a lookup returns; no assembly is needed.

pub(crate) mod blocks;
pub(crate) mod classes;
pub(crate) mod messages;
pub(crate) mod objects;
pub(crate) mod pools;
mod root;

use std::ffi::{CStr, c_char};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever became of an earlier holder: a broken rule panics with locks held, and others must still be able to report.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A C string that the caller passed, copied.
fn text(pointer: *const c_char) -> std::ffi::CString {
    // SAFETY: the bindings pass terminated strings that live for the call.
    unsafe { CStr::from_ptr(pointer) }.to_owned()
}

/// Runs before `main`, so that every class exists before the first message.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

extern "C" fn start() {
    root::define();
    crate::foundation::define();
    objects::forget_live();
    crate::metal::define();
    crate::rules::report_at_exit();
}
