//! Class objects: the exported ones that the bindings address directly, and those made by `define_class!`.

use super::messages::Selector;
use super::objects::Object;
use super::{lock, text};
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_uint, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};

/// A method's code; its caller knows the real signature.
pub(crate) type Implementation = unsafe extern "C-unwind" fn();

/// A method of a class.
#[repr(C)]
pub(crate) struct Method {
    selector: Selector,
    pub(crate) implementation: Implementation,
    types: CString,
}

/// An instance variable of a class.
#[repr(C)]
pub(crate) struct Ivar {
    name: CString,
    offset: isize,
}

struct Info {
    name: CString,
    is_meta: bool,
    instance_size: AtomicUsize,
    methods: RwLock<HashMap<Selector, &'static Method>>,
    ivars: Mutex<Vec<&'static Ivar>>,
}

/// A class. Its first word is the isa, as in every object.
#[repr(C)]
pub(crate) struct Class {
    isa: AtomicPtr<Class>,
    superclass: AtomicPtr<Class>,
    info: AtomicPtr<Info>,
    // The bindings declare class statics larger than three words.
    _padding: [usize; 5],
}

static BY_NAME: Mutex<Vec<(CString, &'static Class)>> = Mutex::new(Vec::new());

impl Class {
    pub(crate) const fn empty() -> Self {
        Self {
            isa: AtomicPtr::new(ptr::null_mut()),
            superclass: AtomicPtr::new(ptr::null_mut()),
            info: AtomicPtr::new(ptr::null_mut()),
            _padding: [0; 5],
        }
    }

    fn info(&self) -> &'static Info {
        // SAFETY: null, or a leaked Info.
        unsafe { self.info.load(Ordering::Acquire).as_ref() }
            .expect("metal-sim: message to a class that is exported but not implemented")
    }

    pub(crate) fn is_meta(&self) -> bool {
        self.info().is_meta
    }

    pub(crate) fn name(&self) -> String {
        self.info().name.to_string_lossy().into_owned()
    }

    pub(crate) fn instance_size(&self) -> usize {
        self.info().instance_size.load(Ordering::Acquire)
    }

    pub(crate) fn metaclass(&self) -> &'static Class {
        // SAFETY: `define` sets it to a class that lives for ever before anybody sees this one.
        unsafe { &*self.isa.load(Ordering::Acquire) }
    }

    pub(crate) fn superclass(&self) -> Option<&'static Class> {
        // SAFETY: null or a class, and classes live for ever.
        unsafe { self.superclass.load(Ordering::Acquire).as_ref() }
    }

    /// The method that answers `selector`, its own or inherited.
    pub(crate) fn method(&self, selector: Selector) -> Option<&'static Method> {
        let own = self.info().methods.read().ok()?.get(&selector).copied();
        own.or_else(|| self.superclass()?.method(selector))
    }

    pub(crate) fn add_method(&self, selector: Selector, implementation: Implementation, types: CString) -> bool {
        let method = Box::leak(Box::new(Method { selector, implementation, types }));
        let mut methods = self.info().methods.write().expect("no writer panics");
        methods.insert(selector, method).is_none()
    }

    /// Fills in an empty class and its metaclass.
    pub(crate) fn define(&'static self, name: CString, superclass: Option<&'static Class>) {
        let info = |is_meta, size: usize| {
            Box::into_raw(Box::new(Info {
                name: name.clone(),
                is_meta,
                instance_size: AtomicUsize::new(size),
                methods: RwLock::default(),
                ivars: Mutex::default(),
            }))
        };
        let meta: &'static Class = Box::leak(Box::new(Class::empty()));
        meta.info.store(info(true, size_of::<Class>()), Ordering::Release);
        self.info.store(info(false, superclass.map_or(size_of::<Object>(), Class::instance_size)), Ordering::Release);
        self.isa.store(meta.as_ptr(), Ordering::Release);
        match superclass {
            Some(parent) => {
                self.superclass.store(parent.as_ptr(), Ordering::Release);
                meta.superclass.store(parent.metaclass().as_ptr(), Ordering::Release);
                meta.isa.store(parent.metaclass().metaclass().as_ptr(), Ordering::Release);
            }
            None => {
                // The root metaclass inherits from the root class and is its own metaclass.
                meta.superclass.store(self.as_ptr(), Ordering::Release);
                meta.isa.store(meta.as_ptr(), Ordering::Release);
            }
        }
        lock(&BY_NAME).push((name, self));
    }

    pub(crate) fn as_ptr(&self) -> *mut Class {
        ptr::from_ref(self).cast_mut()
    }
}

/// Exports one static class object a name, under the symbol that the bindings refer to.
macro_rules! exported_classes {
    ($($symbol:ident),* $(,)?) => {
        mod exported {
            $(
                #[allow(non_upper_case_globals)]
                #[unsafe(export_name = concat!("._OBJC_CLASS_", stringify!($symbol)))]
                pub(crate) static $symbol: super::Class = super::Class::empty();
            )*
        }
        static EXPORTED: &[(&str, &Class)] = &[$((stringify!($symbol), &exported::$symbol)),*];
    };
}

exported_classes! {
    NSObject, NSString, NSError, NSDictionary, NSArray, NSURL,
    MTLHeapDescriptor, MTLCompileOptions, MTLComputePipelineDescriptor, MTLCommandBufferDescriptor,
    MTLCommandQueueDescriptor, MTLResidencySetDescriptor, MTLBinaryArchiveDescriptor, MTLSharedEventListener,
}

/// The class object exported as `name`, or a new one.
pub(crate) fn entry(name: &str) -> &'static Class {
    match EXPORTED.iter().find(|(exported, _)| *exported == name) {
        Some((_, class)) => class,
        None => Box::leak(Box::new(Class::empty())),
    }
}

fn by_name(name: &CString) -> Option<&'static Class> {
    lock(&BY_NAME).iter().find(|(known, _)| known == name).map(|(_, class)| *class)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_getClass(name: *const c_char) -> Option<&'static Class> {
    by_name(&text(name))
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_allocateClassPair(
    superclass: Option<&'static Class>,
    name: *const c_char,
    _extra: usize,
) -> Option<&'static Class> {
    let name = text(name);
    if by_name(&name).is_some() {
        return None;
    }
    let class = entry(&name.to_string_lossy());
    class.define(name, superclass);
    Some(class)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_registerClassPair(_class: &'static Class) {}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_disposeClassPair(class: &'static Class) {
    panic!("metal-sim: objc_disposeClassPair({}): classes are never taken back", class.name());
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_addMethod(
    class: &'static Class,
    selector: Selector,
    implementation: Implementation,
    types: *const c_char,
) -> u8 {
    class.add_method(selector, implementation, text(types)).into()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_addIvar(
    class: &'static Class,
    name: *const c_char,
    size: usize,
    alignment_log2: u8,
    _types: *const c_char,
) -> u8 {
    let info = class.info();
    let offset = info.instance_size.load(Ordering::Acquire).next_multiple_of(1 << alignment_log2);
    info.instance_size.store(offset + size, Ordering::Release);
    lock(&info.ivars).push(Box::leak(Box::new(Ivar { name: text(name), offset: offset as isize })));
    1
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_addProtocol(_class: &'static Class, _protocol: *const c_void) -> u8 {
    1
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_getInstanceVariable(class: &'static Class, name: *const c_char) -> Option<&'static Ivar> {
    let name = text(name);
    let mut class = Some(class);
    while let Some(this) = class {
        if let Some(ivar) = lock(&this.info().ivars).iter().find(|ivar| ivar.name == name) {
            return Some(ivar);
        }
        class = this.superclass();
    }
    None
}

#[unsafe(no_mangle)]
extern "C-unwind" fn ivar_getOffset(ivar: &'static Ivar) -> isize {
    ivar.offset
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_getName(class: &'static Class) -> *const c_char {
    class.info().name.as_ptr()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_getSuperclass(class: &'static Class) -> Option<&'static Class> {
    class.superclass()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_isMetaClass(class: &'static Class) -> u8 {
    class.is_meta().into()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_getInstanceSize(class: &'static Class) -> usize {
    class.instance_size()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_getInstanceMethod(class: &'static Class, selector: Selector) -> Option<&'static Method> {
    class.method(selector)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_getClassMethod(class: &'static Class, selector: Selector) -> Option<&'static Method> {
    class.metaclass().method(selector)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn method_getName(method: &'static Method) -> Selector {
    method.selector
}

#[unsafe(no_mangle)]
extern "C-unwind" fn method_getTypeEncoding(method: &'static Method) -> *const c_char {
    method.types.as_ptr()
}

/// Finds no protocol objects: the bindings then leave out the checks that would need them.
#[unsafe(no_mangle)]
extern "C-unwind" fn objc_getProtocol(_name: *const c_char) -> *const c_void {
    ptr::null()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn protocol_getName(_protocol: *const c_void) -> *const c_char {
    c"".as_ptr()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn protocol_copyMethodDescriptionList(
    _protocol: *const c_void,
    _required: u8,
    _instance: u8,
    count: Option<&mut c_uint>,
) -> *mut c_void {
    if let Some(count) = count {
        *count = 0;
    }
    ptr::null_mut()
}
