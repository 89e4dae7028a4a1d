//! The few Foundation classes that the bindings and a Metal backend use.

pub(crate) mod array;
pub(crate) mod data;
pub(crate) mod error;
pub(crate) mod string;
pub(crate) mod url;

use objc2::ClassType;
use objc2::rc::Retained;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use string::SimString;

/// Makes an object of a class written with `define_class!`: `make!(Class, instance variables)`.
macro_rules! make {
    ($class:ty, $ivars:expr) => {{
        let allocated = <$class as objc2::AnyThread>::alloc().set_ivars($ivars);
        // SAFETY: NSObject's init takes nothing and returns the receiver.
        let object: objc2::rc::Retained<$class> = unsafe { objc2::msg_send![super(allocated), init] };
        object
    }};
}
pub(crate) use make;

/// Registers the classes and fills in the constants.
pub(crate) fn define() {
    for class in [
        SimString::class(),
        error::SimError::class(),
        array::SimArray::class(),
        data::SimData::class(),
        url::SimUrl::class(),
    ] {
        debug_assert!(class.instance_size() > 0);
    }
    for (constant, text) in [
        (&NSLocalizedDescriptionKey, "NSLocalizedDescription"),
        (&MTLCommandBufferErrorDomain, "MTLCommandBufferErrorDomain"),
        (&MTLLibraryErrorDomain, "MTLLibraryErrorDomain"),
    ] {
        constant.store(Retained::into_raw(SimString::new(text)), Ordering::Release);
    }
}

/// String constants that C code exports as pointers.
macro_rules! constants {
    ($($name:ident),*) => {
        $(#[allow(non_upper_case_globals)]
        #[unsafe(no_mangle)]
        static $name: AtomicPtr<SimString> = AtomicPtr::new(ptr::null_mut());)*
    };
}
constants!(NSLocalizedDescriptionKey, MTLCommandBufferErrorDomain, MTLLibraryErrorDomain);
