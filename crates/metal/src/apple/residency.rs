use crate::apple::objects::{AnyThread, Object};
use objc2::rc::autoreleasepool;
use objc2::runtime::{NSObjectProtocol, ProtocolObject};
use objc2::sel;
use objc2_metal::{MTLAllocation, MTLCommandQueue, MTLDevice, MTLResidencySet, MTLResidencySetDescriptor};
use std::sync::{Mutex, PoisonError};

/// Members of one set: every change commits its set again, at a cost that grows with the set.
const MEMBERS: usize = 64;
/// Sets that Metal lets a queue have.
const SETS: usize = 32;

/// Keeps memory resident: residency sets, attached to both queues, where the system has them.
pub(crate) struct Residency {
    device: Object<dyn MTLDevice>,
    queues: [Object<dyn MTLCommandQueue>; 2],
    /// `None` where the system has no residency sets.
    sets: Option<Mutex<Vec<Set>>>,
}

struct Set {
    set: AnyThread<Object<dyn MTLResidencySet>>,
    members: usize,
}

/// An allocation's place: the number of its set.
#[derive(Debug)]
pub(crate) struct Seat(usize);

impl Residency {
    pub(crate) fn new(device: &Object<dyn MTLDevice>, queues: [Object<dyn MTLCommandQueue>; 2]) -> Self {
        let known = device.respondsToSelector(sel!(newResidencySetWithDescriptor:error:));
        Self { device: device.clone(), queues, sets: known.then(Mutex::default) }
    }

    /// True where the system has residency sets.
    pub(crate) fn has_sets(&self) -> bool {
        self.sets.is_some()
    }

    /// Makes an allocation resident in all later command buffers. `None` where there is no place, and Metal sees to it itself.
    pub(crate) fn add(&self, allocation: &ProtocolObject<dyn MTLAllocation>) -> Option<Seat> {
        let mut sets = self.sets.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        autoreleasepool(|_| {
            let at = match sets.iter().position(|set| set.members < MEMBERS) {
                Some(at) => at,
                None if sets.len() < SETS => {
                    sets.push(self.attached()?);
                    sets.len() - 1
                }
                None => return None,
            };
            sets[at].set.addAllocation(allocation);
            sets[at].set.commit();
            sets[at].members += 1;
            Some(Seat(at))
        })
    }

    /// Takes an allocation out again. No command buffer in flight uses it.
    pub(crate) fn remove(&self, seat: Seat, allocation: &ProtocolObject<dyn MTLAllocation>) {
        let Some(sets) = &self.sets else { return };
        let mut sets = sets.lock().unwrap_or_else(PoisonError::into_inner);
        let set = &mut sets[seat.0];
        set.set.removeAllocation(allocation);
        set.set.commit();
        set.members -= 1;
    }

    fn attached(&self) -> Option<Set> {
        let descriptor = MTLResidencySetDescriptor::new();
        let set = self.device.newResidencySetWithDescriptor_error(&descriptor);
        let set = set.inspect_err(|error| tracing::warn!(%error, "no residency set")).ok()?;
        self.queues.iter().for_each(|queue| queue.addResidencySet(&set));
        // SAFETY: changed under the lock of `Residency` only; queues read it when command buffers are committed, which Metal allows.
        Some(Set { set: unsafe { AnyThread::new(set) }, members: 0 })
    }
}
