//! `MTLBinaryArchive` and its descriptor: a file that names the kernels which were added.

use super::object::{SimObject, make_on};
use crate::foundation::error::SimError;
use crate::runtime::lock;
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol};
use objc2::{DefinedClass, Message, define_class, msg_send};
use objc2_foundation::NSURL;
use objc2_metal::{MTLBinaryArchive, MTLComputePipelineDescriptor, MTLFunction};
use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;

/// The first line of an archive's file.
const MAGIC: &str = "metal-sim archive";
/// `MTLBinaryArchiveErrorInvalidFile`.
const INVALID_FILE: isize = 1;

define_class!(
    // SAFETY: SimObject has no requirements for subclasses.
    #[unsafe(super(SimObject, NSObject))]
    #[name = "SimArchive"]
    #[ivars = Mutex<BTreeSet<String>>]
    pub(crate) struct SimArchive;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimArchive {}

    // SAFETY: the methods have the protocol's signatures.
    unsafe impl MTLBinaryArchive for SimArchive {
        #[unsafe(method(addComputePipelineFunctionsWithDescriptor:error:))]
        fn add(&self, descriptor: &MTLComputePipelineDescriptor, error: *mut *mut AnyObject) -> bool {
            match descriptor.computeFunction() {
                Some(function) => {
                    lock(self.ivars()).insert(function.name().to_string());
                    true
                }
                None => fail("the descriptor has no function".into(), error),
            }
        }

        #[unsafe(method(serializeToURL:error:))]
        fn serialize(&self, url: &NSURL, error: *mut *mut AnyObject) -> bool {
            let names = lock(self.ivars()).iter().map(|name| format!("{name}\n")).collect::<String>();
            let path = url.path().map(|path| path.to_string()).unwrap_or_default();
            match fs::write(&path, format!("{MAGIC}\n{names}")) {
                Ok(()) => true,
                Err(cause) => fail(format!("{path}: {cause}"), error),
            }
        }
    }
);

// SAFETY: the instance variables are synchronized.
unsafe impl Send for SimArchive {}
// SAFETY: as above.
unsafe impl Sync for SimArchive {}

impl SimArchive {
    /// An empty archive, or what a file holds.
    pub(crate) fn open(
        device: &super::device::SimDevice,
        url: Option<&NSURL>,
    ) -> Result<Retained<Self>, Retained<SimError>> {
        let mut names = BTreeSet::new();
        if let Some(path) = url.and_then(NSURL::path) {
            let text = fs::read_to_string(path.to_string()).map_err(|cause| failure(format!("{path}: {cause}")))?;
            let mut lines = text.lines();
            if lines.next() != Some(MAGIC) {
                return Err(failure(format!("{path} is not an archive")));
            }
            names.extend(lines.map(ToOwned::to_owned));
        }
        Ok(make_on!(device, SimArchive, Mutex::new(names)))
    }
}

fn failure(message: String) -> Retained<SimError> {
    SimError::new("MTLBinaryArchiveDomain", INVALID_FILE, message)
}

fn fail(message: String, error: *mut *mut AnyObject) -> bool {
    SimError::write(failure(message), error);
    false
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MTLBinaryArchiveDescriptor"]
    #[ivars = Mutex<Option<Retained<NSURL>>>]
    pub(crate) struct SimArchiveDescriptor;

    impl SimArchiveDescriptor {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Option<Retained<Self>> {
            let this = this.set_ivars(Mutex::default());
            // SAFETY: NSObject's init.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method_id(url))]
        fn url(&self) -> Option<Retained<NSURL>> {
            lock(self.ivars()).clone()
        }

        #[unsafe(method(setUrl:))]
        fn set_url(&self, url: Option<&NSURL>) {
            *lock(self.ivars()) = url.map(Message::retain);
        }
    }
);
