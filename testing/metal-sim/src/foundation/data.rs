//! `dispatch_data_t`: bytes for `newLibraryWithData:error:`. A library's data is [`MAGIC`], then MSL.

use super::make;
use block2::DynBlock;
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, NSObject};
use objc2::{DefinedClass, define_class};
use std::ffi::c_void;
use std::slice;

/// Magic word at the start of a compiled library; the simulator's has MSL behind it.
pub(crate) const MAGIC: &[u8] = b"MTLB";

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "OS_dispatch_data"]
    #[ivars = Vec<u8>]
    pub(crate) struct SimData;
);

impl SimData {
    /// The MSL behind the magic word.
    pub(crate) fn msl(&self) -> Option<&str> {
        std::str::from_utf8(self.ivars().strip_prefix(MAGIC)?).ok()
    }
}

/// Copies the bytes, and lets the caller's destructor free its own at once.
#[unsafe(no_mangle)]
extern "C-unwind" fn dispatch_data_create(
    bytes: *const c_void,
    len: usize,
    _queue: *const c_void,
    destructor: Option<&DynBlock<dyn Fn()>>,
) -> *mut AnyObject {
    // SAFETY: the caller passes `len` readable bytes; a null pointer comes with no bytes.
    let copied = if len == 0 { Vec::new() } else { unsafe { slice::from_raw_parts(bytes.cast(), len) }.to_vec() };
    if let Some(destructor) = destructor {
        destructor.call(());
    }
    Retained::into_raw(make!(SimData, copied)).cast()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn dispatch_retain(object: *mut AnyObject) {
    // SAFETY: an object of this module; the reference is the caller's to release.
    std::mem::forget(unsafe { Retained::retain(object) });
}

#[unsafe(no_mangle)]
extern "C-unwind" fn dispatch_release(object: *mut AnyObject) {
    // SAFETY: the caller releases a reference that it holds.
    drop(unsafe { Retained::from_raw(object) });
}
