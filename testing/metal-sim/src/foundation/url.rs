//! `NSURL`, for files only.

use super::make;
use super::string::SimString;
use objc2::rc::{Allocated, Retained};
use objc2::runtime::NSObject;
use objc2::{DefinedClass, define_class, msg_send};
use objc2_foundation::NSString;

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSURL"]
    #[ivars = String]
    pub(crate) struct SimUrl;

    impl SimUrl {
        #[unsafe(method_id(fileURLWithPath:))]
        fn file(path: &NSString) -> Retained<Self> {
            make!(Self, path.to_string())
        }

        #[unsafe(method_id(fileURLWithPath:isDirectory:))]
        fn file_or_folder(path: &NSString, _is_folder: bool) -> Retained<Self> {
            make!(Self, path.to_string())
        }

        #[unsafe(method_id(initFileURLWithPath:))]
        fn init_file(this: Allocated<Self>, path: &NSString) -> Option<Retained<Self>> {
            let this = this.set_ivars(path.to_string());
            // SAFETY: NSObject's init.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method_id(path))]
        fn path(&self) -> Option<Retained<SimString>> {
            Some(SimString::new(self.ivars()))
        }
    }
);
