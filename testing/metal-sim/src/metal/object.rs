//! Device and label, which all Metal objects have.

use super::device::SimDevice;
use crate::foundation::string::SimString;
use crate::rules;
use crate::runtime::lock;
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{DefinedClass, DowncastTarget, define_class, msg_send};
use objc2_foundation::NSString;
use std::sync::{Mutex, OnceLock};

/// Label and device of an object.
#[derive(Default)]
pub(crate) struct Identity {
    label: Mutex<Option<String>>,
    device: OnceLock<Retained<SimDevice>>,
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "SimObject"]
    #[ivars = Identity]
    pub(crate) struct SimObject;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimObject {}

    impl SimObject {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Option<Retained<Self>> {
            let this = this.set_ivars(Identity::default());
            // SAFETY: NSObject's init.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method_id(device))]
        fn device_object(&self) -> Option<Retained<SimDevice>> {
            self.ivars().device.get().cloned()
        }

        #[unsafe(method_id(label))]
        fn label_string(&self) -> Option<Retained<SimString>> {
            lock(&self.ivars().label).as_deref().map(SimString::new)
        }

        #[unsafe(method(setLabel:))]
        fn set_label(&self, label: Option<&NSString>) {
            *lock(&self.ivars().label) = label.map(ToString::to_string);
        }
    }
);

// SAFETY: the instance variables are synchronized.
unsafe impl Send for SimObject {}
// SAFETY: as above.
unsafe impl Sync for SimObject {}

impl SimObject {
    /// Sets the device, once.
    pub(crate) fn belong_to(&self, device: &SimDevice) {
        let device = objc2::Message::retain(device);
        assert!(self.ivars().device.set(device).is_ok(), "metal-sim: an object has one device");
    }

    pub(crate) fn owner(&self) -> &SimDevice {
        self.ivars().device.get().expect("set when the object was made")
    }

    /// The label in quotes, or `fallback`.
    pub(crate) fn label_or(&self, fallback: &str) -> String {
        match &*lock(&self.ivars().label) {
            Some(label) => format!("{fallback} \"{label}\""),
            None => fallback.to_owned(),
        }
    }
}

/// The simulator's object behind a protocol object that a caller passed.
pub(crate) fn cast<'a, T: DowncastTarget, P: ?Sized + 'static>(object: &'a ProtocolObject<P>, call: &str) -> &'a T {
    let object: &AnyObject = object.as_ref();
    match object.downcast_ref::<T>() {
        Some(object) => object,
        None => {
            rules::broken(call, &format!("an argument is a {}", object.class().name().to_string_lossy()));
            panic!("{call}: wrong class of argument")
        }
    }
}

/// Makes an object of a device: `make_on!(device, Class, instance variables)`.
macro_rules! make_on {
    ($device:expr, $class:ty, $ivars:expr) => {{
        let object = $crate::foundation::make!($class, $ivars);
        object.belong_to($device);
        object
    }};
}
pub(crate) use make_on;
