//! `NSArray`, immutable.

use super::make;
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject};
use objc2::{DefinedClass, define_class, msg_send};
use objc2_foundation::NSRange;
use std::slice;

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSArray"]
    #[ivars = Vec<Retained<AnyObject>>]
    pub(crate) struct SimArray;

    impl SimArray {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Option<Retained<Self>> {
            let this = this.set_ivars(Vec::new());
            // SAFETY: NSObject's init.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method_id(initWithObjects:count:))]
        fn init_with(this: Allocated<Self>, objects: *mut *mut AnyObject, count: usize) -> Option<Retained<Self>> {
            let objects: &[*mut AnyObject] = match count {
                0 => &[],
                // SAFETY: the caller passes `count` objects.
                _ => unsafe { slice::from_raw_parts(objects, count) },
            };
            // SAFETY: each is null, which is left out, or an object.
            let objects = objects.iter().filter_map(|object| unsafe { Retained::retain(*object) }).collect();
            let this = this.set_ivars(objects);
            // SAFETY: NSObject's init.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method(count))]
        fn count(&self) -> usize {
            self.ivars().len()
        }

        #[unsafe(method_id(objectAtIndex:))]
        fn object_at(&self, index: usize) -> Retained<AnyObject> {
            let objects = self.ivars();
            crate::rules::require(index < objects.len(), "-[NSArray objectAtIndex:]", || {
                format!("index {index} of {} objects", objects.len())
            });
            objects[index].clone()
        }

        #[unsafe(method_id(firstObject))]
        fn first(&self) -> Option<Retained<AnyObject>> {
            self.ivars().first().cloned()
        }

        #[unsafe(method(getObjects:range:))]
        fn get(&self, out: *mut *mut AnyObject, range: NSRange) {
            for (position, object) in self.ivars()[range.location..range.location + range.length].iter().enumerate() {
                // SAFETY: the caller's array has `range.length` elements.
                unsafe { *out.add(position) = Retained::as_ptr(object).cast_mut() };
            }
        }
    }
);

impl SimArray {
    pub(crate) fn new(objects: Vec<Retained<AnyObject>>) -> Retained<Self> {
        make!(Self, objects)
    }
}
