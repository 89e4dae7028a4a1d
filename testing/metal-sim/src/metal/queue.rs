//! `MTLCommandQueue` and its descriptor.

use super::command_buffer::SimCommandBuffer;
use super::hazards::QueueId;
use super::object::{SimObject, cast, make_on};
use super::residency::SimResidencySet;
use super::worker::{self, Work};
use crate::rules;
use crate::runtime::lock;
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{DefinedClass, Message, define_class, msg_send};
use objc2_metal::{MTLCommandBufferDescriptor, MTLCommandQueue, MTLResidencySet};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Once};

/// Uncompleted command buffers that a queue may have unless its maker says otherwise.
pub(crate) const DEFAULT_LIMIT: usize = 64;

/// Residency sets that a queue takes.
const MAX_RESIDENCY_SETS: usize = 32;

#[derive(Default)]
struct Pending {
    work: VecDeque<Work>,
    closed: bool,
}

/// State that a queue shares with its thread.
pub(crate) struct QueueCore {
    pub(crate) id: QueueId,
    limit: usize,
    uncompleted: AtomicUsize,
    pending: Mutex<Pending>,
    wake: Condvar,
    started: Once,
}

impl QueueCore {
    /// The next command buffer to run; `None` once the queue is gone.
    pub(crate) fn next(&self) -> Option<Work> {
        let mut pending = lock(&self.pending);
        loop {
            if let Some(work) = pending.work.pop_front() {
                return Some(work);
            }
            if pending.closed {
                return None;
            }
            pending = self.wake.wait(pending).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    pub(crate) fn push(self: &Arc<Self>, work: Work) {
        self.started.call_once(|| worker::start(self.clone()));
        lock(&self.pending).work.push_back(work);
        self.wake.notify_one();
    }

    /// Counts a new command buffer.
    fn begin(&self, call: &str) {
        let uncompleted = self.uncompleted.load(Ordering::Acquire) + 1;
        rules::require(uncompleted <= self.limit, call, || {
            format!(
                "{uncompleted} uncompleted command buffers on a queue made for {}; a real one would block",
                self.limit
            )
        });
        self.uncompleted.fetch_add(1, Ordering::AcqRel);
    }

    /// A command buffer has completed, or was released without a commit.
    pub(crate) fn end(&self) {
        self.uncompleted.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Instance variables of a queue.
pub(crate) struct QueueState {
    pub(crate) core: Arc<QueueCore>,
    residency_sets: Mutex<Vec<Retained<SimResidencySet>>>,
}

impl Drop for QueueState {
    fn drop(&mut self) {
        lock(&self.core.pending).closed = true;
        self.core.wake.notify_all();
    }
}

define_class!(
    // SAFETY: SimObject has no requirements for subclasses.
    #[unsafe(super(SimObject, NSObject))]
    #[name = "SimQueue"]
    #[ivars = QueueState]
    pub(crate) struct SimQueue;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimQueue {}

    // SAFETY: the methods have the protocol's signatures.
    unsafe impl MTLCommandQueue for SimQueue {
        #[unsafe(method_id(commandBuffer))]
        fn command_buffer(&self) -> Option<Retained<SimCommandBuffer>> {
            self.ivars().core.begin("-[MTLCommandQueue commandBuffer]");
            Some(SimCommandBuffer::new(self, true))
        }

        #[unsafe(method_id(commandBufferWithUnretainedReferences))]
        fn unretained_command_buffer(&self) -> Option<Retained<SimCommandBuffer>> {
            self.ivars().core.begin("-[MTLCommandQueue commandBufferWithUnretainedReferences]");
            Some(SimCommandBuffer::new(self, false))
        }

        #[unsafe(method_id(commandBufferWithDescriptor:))]
        fn command_buffer_with(&self, descriptor: &MTLCommandBufferDescriptor) -> Option<Retained<SimCommandBuffer>> {
            self.ivars().core.begin("-[MTLCommandQueue commandBufferWithDescriptor:]");
            Some(SimCommandBuffer::new(self, descriptor.retainedReferences()))
        }

        #[unsafe(method(insertDebugCaptureBoundary))]
        fn insert_debug_capture_boundary(&self) {}

        #[unsafe(method(addResidencySet:))]
        fn add_residency_set(&self, set: &ProtocolObject<dyn MTLResidencySet>) {
            self.attach(set, "-[MTLCommandQueue addResidencySet:]");
        }

        #[unsafe(method(addResidencySets:count:))]
        fn add_residency_sets(&self, sets: NonNull<NonNull<ProtocolObject<dyn MTLResidencySet>>>, count: usize) {
            // SAFETY: the caller passes `count` residency sets.
            for set in unsafe { slice::from_raw_parts(sets.as_ptr(), count) } {
                // SAFETY: as above.
                self.attach(unsafe { set.as_ref() }, "-[MTLCommandQueue addResidencySets:count:]");
            }
        }

        #[unsafe(method(removeResidencySet:))]
        fn remove_residency_set(&self, set: &ProtocolObject<dyn MTLResidencySet>) {
            let call = "-[MTLCommandQueue removeResidencySet:]";
            let set: &SimResidencySet = cast(set, call);
            let mut sets = lock(&self.ivars().residency_sets);
            let position = sets.iter().position(|known| std::ptr::eq(&**known, set));
            let removed = position.map(|position| sets.remove(position));
            drop(sets);
            rules::require(removed.is_some(), call, || "the set was not added".into());
        }
    }
);

// SAFETY: the instance variables are synchronized.
unsafe impl Send for SimQueue {}
// SAFETY: as above.
unsafe impl Sync for SimQueue {}

impl SimQueue {
    pub(crate) fn new(device: &super::device::SimDevice, limit: usize) -> Retained<Self> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let core = QueueCore {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            limit,
            uncompleted: AtomicUsize::new(0),
            pending: Mutex::default(),
            wake: Condvar::new(),
            started: Once::new(),
        };
        make_on!(device, SimQueue, QueueState { core: Arc::new(core), residency_sets: Mutex::default() })
    }

    fn attach(&self, set: &ProtocolObject<dyn MTLResidencySet>, call: &str) {
        let set: &SimResidencySet = cast(set, call);
        let mut sets = lock(&self.ivars().residency_sets);
        sets.push(set.retain());
        let count = sets.len();
        drop(sets);
        rules::require(count <= MAX_RESIDENCY_SETS, call, || {
            format!("{count} residency sets; a queue takes up to {MAX_RESIDENCY_SETS}")
        });
    }
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MTLCommandQueueDescriptor"]
    #[ivars = AtomicUsize]
    pub(crate) struct SimQueueDescriptor;

    impl SimQueueDescriptor {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Option<Retained<Self>> {
            let this = this.set_ivars(AtomicUsize::new(DEFAULT_LIMIT));
            // SAFETY: NSObject's init.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method(maxCommandBufferCount))]
        fn limit(&self) -> usize {
            self.ivars().load(Ordering::Relaxed)
        }

        #[unsafe(method(setMaxCommandBufferCount:))]
        fn set_limit(&self, limit: usize) {
            self.ivars().store(limit, Ordering::Relaxed);
        }
    }
);
