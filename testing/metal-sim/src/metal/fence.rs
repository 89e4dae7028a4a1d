//! `MTLFence`: orders passes of one queue.

use super::hazards::{Clock, QueueId};
use super::in_use::Uses;
use super::object::SimObject;
use crate::rules;
use crate::runtime::lock;
use objc2::define_class;
use objc2::runtime::{NSObject, NSObjectProtocol};
use objc2_metal::MTLFence;
use std::sync::{Arc, Mutex, OnceLock};

/// Clock of a fence's last update and the fence's queue, shared with the commands that use the fence.
#[derive(Default)]
pub(crate) struct FenceClock {
    clock: Mutex<Clock>,
    queue: OnceLock<QueueId>,
}

impl FenceClock {
    pub(crate) fn set(&self, clock: Clock) {
        *lock(&self.clock) = clock;
    }

    pub(crate) fn get(&self) -> Clock {
        lock(&self.clock).clone()
    }

    /// Breaks a rule if the fence was used on another queue before.
    pub(crate) fn use_on(&self, queue: QueueId, call: &str) {
        rules::require(*self.queue.get_or_init(|| queue) == queue, call, || {
            "a fence orders passes of one queue; between queues it takes an event".into()
        });
    }
}

/// Instance variables of a fence.
#[derive(Default)]
pub(crate) struct FenceState {
    pub(crate) clock: Arc<FenceClock>,
    pub(crate) uses: Uses,
}

impl Drop for FenceState {
    fn drop(&mut self) {
        self.uses.must_be_over("a fence");
    }
}

define_class!(
    // SAFETY: SimObject has no requirements for subclasses.
    #[unsafe(super(SimObject, NSObject))]
    #[name = "SimFence"]
    #[ivars = FenceState]
    pub(crate) struct SimFence;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimFence {}

    // SAFETY: SimObject has its methods.
    unsafe impl MTLFence for SimFence {}
);

// SAFETY: the instance variables are synchronized.
unsafe impl Send for SimFence {}
// SAFETY: as above.
unsafe impl Sync for SimFence {}
