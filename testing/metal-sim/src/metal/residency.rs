//! `MTLResidencySet` and its descriptor. Everything is resident in the simulator; what is checked is the bookkeeping.

use super::device::SimDevice;
use super::object::{SimObject, make_on};
use crate::foundation::array::SimArray;
use crate::foundation::string::SimString;
use crate::rules;
use crate::runtime::lock;
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{DefinedClass, Message, define_class, msg_send};
use objc2_foundation::NSString;
use objc2_metal::{MTLAllocation, MTLResidencySet};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::slice;
use std::sync::Mutex;

type Allocation = Retained<ProtocolObject<dyn MTLAllocation>>;

/// Allocations by address: as they are to be, and as the last commit left them.
#[derive(Default)]
pub(crate) struct Members {
    pending: BTreeMap<usize, Allocation>,
    committed: BTreeMap<usize, Allocation>,
}

define_class!(
    // SAFETY: SimObject has no requirements for subclasses.
    #[unsafe(super(SimObject, NSObject))]
    #[name = "SimResidencySet"]
    #[ivars = Mutex<Members>]
    pub(crate) struct SimResidencySet;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimResidencySet {}

    // SAFETY: the methods have the protocol's signatures.
    unsafe impl MTLResidencySet for SimResidencySet {
        #[unsafe(method(addAllocation:))]
        fn add(&self, allocation: &ProtocolObject<dyn MTLAllocation>) {
            lock(self.ivars()).pending.insert(address(allocation), allocation.retain());
        }

        #[unsafe(method(addAllocations:count:))]
        fn add_all(&self, allocations: NonNull<NonNull<ProtocolObject<dyn MTLAllocation>>>, count: usize) {
            // SAFETY: the caller passes `count` allocations.
            for allocation in unsafe { slice::from_raw_parts(allocations.as_ptr(), count) } {
                // SAFETY: as above.
                let allocation = unsafe { allocation.as_ref() };
                lock(self.ivars()).pending.insert(address(allocation), allocation.retain());
            }
        }

        #[unsafe(method(removeAllocation:))]
        fn remove(&self, allocation: &ProtocolObject<dyn MTLAllocation>) {
            let removed = lock(self.ivars()).pending.remove(&address(allocation));
            rules::require(removed.is_some(), "-[MTLResidencySet removeAllocation:]", || {
                "the allocation is not in the set".into()
            });
        }

        #[unsafe(method(removeAllAllocations))]
        fn remove_all(&self) {
            let removed = std::mem::take(&mut lock(self.ivars()).pending);
            drop(removed);
        }

        #[unsafe(method(commit))]
        fn commit(&self) {
            let replaced = {
                let mut members = lock(self.ivars());
                let pending = members.pending.clone();
                std::mem::replace(&mut members.committed, pending)
            };
            drop(replaced);
        }

        #[unsafe(method(requestResidency))]
        fn request_residency(&self) {}

        #[unsafe(method(endResidency))]
        fn end_residency(&self) {}

        #[unsafe(method(containsAllocation:))]
        fn contains(&self, allocation: &ProtocolObject<dyn MTLAllocation>) -> bool {
            lock(self.ivars()).pending.contains_key(&address(allocation))
        }

        #[unsafe(method(allocationCount))]
        fn count(&self) -> usize {
            lock(self.ivars()).pending.len()
        }

        #[unsafe(method_id(allAllocations))]
        fn all(&self) -> Retained<SimArray> {
            let members = lock(self.ivars());
            SimArray::new(members.pending.values().map(|allocation| object(allocation).retain()).collect())
        }

        #[unsafe(method(allocatedSize))]
        fn allocated_size(&self) -> u64 {
            lock(self.ivars()).committed.values().map(|allocation| allocation.allocatedSize() as u64).sum()
        }
    }
);

// SAFETY: the instance variables are synchronized.
unsafe impl Send for SimResidencySet {}
// SAFETY: as above.
unsafe impl Sync for SimResidencySet {}

impl SimResidencySet {
    pub(crate) fn new(device: &SimDevice) -> Retained<Self> {
        make_on!(device, SimResidencySet, Mutex::default())
    }
}

fn object(allocation: &ProtocolObject<dyn MTLAllocation>) -> &AnyObject {
    allocation.as_ref()
}

fn address(allocation: &ProtocolObject<dyn MTLAllocation>) -> usize {
    std::ptr::from_ref(object(allocation)).addr()
}

/// Instance variables of a residency set's descriptor.
#[derive(Default)]
pub(crate) struct Description {
    label: Option<String>,
    capacity: usize,
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MTLResidencySetDescriptor"]
    #[ivars = Mutex<Description>]
    pub(crate) struct SimResidencySetDescriptor;

    impl SimResidencySetDescriptor {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Option<Retained<Self>> {
            let this = this.set_ivars(Mutex::default());
            // SAFETY: NSObject's init.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method_id(label))]
        fn label(&self) -> Option<Retained<SimString>> {
            lock(self.ivars()).label.as_deref().map(SimString::new)
        }

        #[unsafe(method(setLabel:))]
        fn set_label(&self, label: Option<&NSString>) {
            lock(self.ivars()).label = label.map(ToString::to_string);
        }

        #[unsafe(method(initialCapacity))]
        fn capacity(&self) -> usize {
            lock(self.ivars()).capacity
        }

        #[unsafe(method(setInitialCapacity:))]
        fn set_capacity(&self, capacity: usize) {
            lock(self.ivars()).capacity = capacity;
        }
    }
);
