//! `NSError`, and the `NSDictionary` that it comes with.

use super::make;
use super::string::SimString;
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, NSObject};
use objc2::{DefinedClass, define_class};

pub(crate) struct Failure {
    code: isize,
    domain: &'static str,
    description: String,
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSError"]
    #[ivars = Failure]
    pub(crate) struct SimError;

    impl SimError {
        #[unsafe(method(code))]
        fn code(&self) -> isize {
            self.ivars().code
        }

        #[unsafe(method_id(domain))]
        fn domain(&self) -> Retained<SimString> {
            SimString::new(self.ivars().domain)
        }

        #[unsafe(method_id(localizedDescription))]
        fn description(&self) -> Retained<SimString> {
            SimString::new(&self.ivars().description)
        }

        #[unsafe(method_id(userInfo))]
        fn user_info(&self) -> Retained<SimDictionary> {
            make!(SimDictionary, ())
        }
    }
);

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSDictionary"]
    #[ivars = ()]
    pub(crate) struct SimDictionary;

    // Always empty: errors carry nothing else.
    impl SimDictionary {
        #[unsafe(method(count))]
        fn count(&self) -> usize {
            0
        }

        #[unsafe(method(getObjects:andKeys:))]
        fn get(&self, _objects: *mut *mut AnyObject, _keys: *mut *mut AnyObject) {}
    }
);

impl SimError {
    pub(crate) fn new(domain: &'static str, code: isize, description: String) -> Retained<Self> {
        make!(Self, Failure { code, domain, description })
    }

    /// Hands the error to a caller through its `error:` parameter, autoreleased as Cocoa has it. A null `out` drops it.
    pub(crate) fn write(self_: Retained<Self>, out: *mut *mut AnyObject) {
        if !out.is_null() {
            // SAFETY: the caller's parameter is writable.
            unsafe { *out = Retained::autorelease_ptr(self_).cast() };
        }
    }
}
