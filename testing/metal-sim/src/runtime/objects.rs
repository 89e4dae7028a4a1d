//! Instances: a hidden prefix with the retain count, the isa, then the instance variables.
//!
//! Memory of a released object is never freed while the process runs: the object becomes a zombie, so that a later use
//! is named instead of undefined.

use super::classes::Class;
use super::lock;
use super::messages::Selector;
use crate::rules;
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::BTreeMap;
use std::mem;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Header before the isa. Its size keeps objects aligned to 16 bytes.
#[repr(C, align(16))]
struct Prefix {
    count: AtomicUsize,
    serial: u64,
    /// The class, also once the object is a zombie.
    class: &'static Class,
}

/// An instance or a class.
#[repr(C)]
pub(crate) struct Object {
    isa: AtomicPtr<Class>,
}

static ZOMBIE: Class = Class::empty();
static LIVE: Mutex<BTreeMap<u64, String>> = Mutex::new(BTreeMap::new());

impl Object {
    /// A new instance with count 1 and zeroed instance variables.
    pub(crate) fn new(class: &'static Class) -> &'static Object {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let size = size_of::<Prefix>() + class.instance_size();
        let layout = Layout::from_size_align(size, align_of::<Prefix>()).expect("an instance is small");
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        lock(&LIVE).insert(serial, class.name());
        // SAFETY: the allocation holds a prefix and then an instance, both suitably aligned; it is never freed.
        unsafe {
            memory.cast::<Prefix>().write(Prefix { count: AtomicUsize::new(1), serial, class });
            let object = memory.add(size_of::<Prefix>()).cast::<Object>();
            object.write(Object { isa: AtomicPtr::new(class.as_ptr()) });
            &*object
        }
    }

    fn prefix(&self) -> &'static Prefix {
        debug_assert!(!self.is_class());
        // SAFETY: every instance was made by `new`, with a prefix before it, and is never freed.
        unsafe { &*ptr::from_ref(self).cast::<Prefix>().sub(1) }
    }

    pub(crate) fn class(&self) -> &'static Class {
        // SAFETY: the isa of an object points at a class, and classes live for ever.
        unsafe { &*self.isa.load(Ordering::Acquire) }
    }

    pub(crate) fn is_zombie(&self) -> bool {
        ptr::eq(self.isa.load(Ordering::Acquire), &ZOMBIE)
    }

    fn is_class(&self) -> bool {
        !self.is_zombie() && self.class().is_meta()
    }

    /// The class that a zombie once had.
    pub(crate) fn zombie_name(&self) -> String {
        self.prefix().class.name()
    }

    fn retain(&self) {
        if self.is_zombie() {
            return rules::broken("objc_retain", &format!("retain of a released {}", self.zombie_name()));
        }
        if !self.is_class() {
            self.prefix().count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn release(&'static self) {
        if self.is_zombie() {
            let name = self.zombie_name();
            return rules::broken("objc_release", &format!("unbalanced release of a {name} that is already gone"));
        }
        if self.is_class() || self.prefix().count.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let dealloc = Selector::new(c"dealloc");
        let method = self.class().method(dealloc).expect("the root class has dealloc");
        // SAFETY: dealloc takes the receiver and its selector and returns nothing.
        let dealloc_method = unsafe {
            mem::transmute::<super::classes::Implementation, extern "C-unwind" fn(&Object, Selector)>(
                method.implementation,
            )
        };
        dealloc_method(self, dealloc);
    }

    /// The end of `dealloc`: the object is a zombie from now on.
    pub(crate) fn bury(&self) {
        lock(&LIVE).remove(&self.prefix().serial);
        self.isa.store(ZOMBIE.as_ptr(), Ordering::Release);
    }
}

/// Live objects, as `class #serial`, oldest first.
pub(crate) fn live() -> Vec<String> {
    lock(&LIVE).iter().map(|(serial, class)| format!("{class} #{serial}")).collect()
}

/// Exempts the objects that are live now from [`live`]: the string constants, which are never released.
pub(super) fn forget_live() {
    lock(&LIVE).clear();
}

#[unsafe(no_mangle)]
pub(super) extern "C-unwind" fn objc_retain(object: Option<&'static Object>) -> Option<&'static Object> {
    object.inspect(|object| object.retain())
}

#[unsafe(no_mangle)]
pub(super) extern "C-unwind" fn objc_release(object: Option<&'static Object>) {
    if let Some(object) = object {
        object.release();
    }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn object_getClass(object: Option<&'static Object>) -> Option<&'static Class> {
    let object = object?;
    if object.is_zombie() {
        rules::broken("object_getClass", &format!("use of a released {}", object.zombie_name()));
        return Some(object.prefix().class);
    }
    Some(object.class())
}
