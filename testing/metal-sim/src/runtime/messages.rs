//! Selectors and the lookup of methods.

use super::classes::{Class, Implementation};
use super::objects::Object;
use super::{lock, text};
use crate::rules;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::sync::Mutex;

/// An interned name; equal names have equal addresses.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Selector(*const c_char);

// SAFETY: it points at an interned string, which is never written nor freed.
unsafe impl Send for Selector {}
// SAFETY: as above.
unsafe impl Sync for Selector {}

impl Selector {
    pub(crate) fn new(name: &CStr) -> Self {
        static INTERNED: Mutex<BTreeMap<CString, Selector>> = Mutex::new(BTreeMap::new());
        let mut interned = lock(&INTERNED);
        if let Some(selector) = interned.get(name) {
            return *selector;
        }
        let selector = Self(name.to_owned().into_raw());
        interned.insert(name.to_owned(), selector);
        selector
    }

    fn name(self) -> String {
        // SAFETY: an interned string.
        unsafe { CStr::from_ptr(self.0) }.to_string_lossy().into_owned()
    }
}

fn implementation(class: &'static Class, selector: Selector) -> Implementation {
    match class.method(selector) {
        Some(method) => method.implementation,
        None => {
            let sign = if class.is_meta() { '+' } else { '-' };
            let call = format!("{sign}[{} {}]", class.name(), selector.name());
            rules::broken(&call, "unrecognized selector");
            panic!("{call} cannot be answered")
        }
    }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn sel_registerName(name: *const c_char) -> Selector {
    Selector::new(&text(name))
}

#[unsafe(no_mangle)]
extern "C-unwind" fn sel_getName(selector: Selector) -> *const c_char {
    selector.0
}

#[unsafe(no_mangle)]
extern "C-unwind" fn sel_isEqual(left: Selector, right: Selector) -> u8 {
    (left == right).into()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_msg_lookup(receiver: &'static Object, selector: Selector) -> Implementation {
    if receiver.is_zombie() {
        let name = receiver.zombie_name();
        rules::broken(&format!("-[{name} {}]", selector.name()), &format!("use of a released {name}"));
    }
    implementation(receiver.class(), selector)
}

/// The receiver and the class from which lookup begins.
#[repr(C)]
struct SuperCall {
    receiver: &'static Object,
    class: &'static Class,
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_msg_lookup_super(call: &SuperCall, selector: Selector) -> Implementation {
    debug_assert!(!call.receiver.is_zombie());
    implementation(call.class, selector)
}
