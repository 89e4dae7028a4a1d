//! `NSObject`, the one class built by hand: everything else inherits from it and is written with `define_class!`.

use super::classes::{self, Class, Implementation};
use super::messages::Selector;
use super::objects::Object;
use std::ffi::CStr;
use std::mem;

/// Defines `NSObject`.
pub(super) fn define() {
    let root = classes::entry("NSObject");
    root.define(c"NSObject".to_owned(), None);
    macro_rules! method {
        ($class:expr, $name:literal, $types:literal, $function:expr, $signature:ty) => {
            // SAFETY: a method is called with the signature that its encoding states.
            let code = unsafe { mem::transmute::<$signature, Implementation>($function) };
            $class.add_method(Selector::new($name), code, <CStr as ToOwned>::to_owned($types));
        };
    }
    type OnClass = extern "C-unwind" fn(&'static Class, Selector) -> &'static Object;
    type Own = extern "C-unwind" fn(&'static Object, Selector) -> &'static Object;
    let meta = root.metaclass();
    method!(meta, c"alloc", c"@@:", allocate, OnClass);
    method!(meta, c"new", c"@@:", new, OnClass);
    method!(root, c"init", c"@@:", itself, Own);
    method!(root, c"self", c"@@:", itself, Own);
    method!(root, c"dealloc", c"v@:", deallocate, extern "C-unwind" fn(&'static Object, Selector));
    method!(root, c"hash", c"Q@:", hash, extern "C-unwind" fn(&'static Object, Selector) -> usize);
    method!(root, c"isEqual:", c"C@:@", is_equal, extern "C-unwind" fn(&'static Object, Selector, *const Object) -> u8);
    method!(
        root,
        c"isKindOfClass:",
        c"C@:#",
        is_kind,
        extern "C-unwind" fn(&'static Object, Selector, &'static Class) -> u8
    );
    method!(
        root,
        c"respondsToSelector:",
        c"C@::",
        responds,
        extern "C-unwind" fn(&'static Object, Selector, Selector) -> u8
    );
}

extern "C-unwind" fn allocate(class: &'static Class, _: Selector) -> &'static Object {
    Object::new(class)
}

extern "C-unwind" fn new(class: &'static Class, _: Selector) -> &'static Object {
    let init = Selector::new(c"init");
    let method = class.method(init).expect("the root class has init");
    // SAFETY: init takes the receiver and its selector and returns an object.
    let code = unsafe {
        mem::transmute::<Implementation, extern "C-unwind" fn(&'static Object, Selector) -> &'static Object>(
            method.implementation,
        )
    };
    code(Object::new(class), init)
}

extern "C-unwind" fn itself(object: &'static Object, _: Selector) -> &'static Object {
    object
}

extern "C-unwind" fn deallocate(object: &'static Object, _: Selector) {
    object.bury();
}

extern "C-unwind" fn hash(object: &'static Object, _: Selector) -> usize {
    std::ptr::from_ref(object).addr()
}

extern "C-unwind" fn is_equal(object: &'static Object, _: Selector, other: *const Object) -> u8 {
    std::ptr::eq(object, other).into()
}

extern "C-unwind" fn is_kind(object: &'static Object, _: Selector, kind: &'static Class) -> u8 {
    let mut class = Some(object.class());
    while let Some(this) = class {
        if std::ptr::eq(this, kind) {
            return 1;
        }
        class = this.superclass();
    }
    0
}

extern "C-unwind" fn responds(object: &'static Object, _: Selector, selector: Selector) -> u8 {
    object.class().method(selector).is_some().into()
}
