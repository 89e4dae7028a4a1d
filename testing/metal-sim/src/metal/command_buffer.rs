//! `MTLCommandBuffer` and its descriptor: records passes, events and handlers; runs them on its queue's thread.

use super::blit_encoder::SimBlitEncoder;
use super::command::{Pass, Step};
use super::compute_encoder::SimComputeEncoder;
use super::event::SimEvent;
use super::execution::{self, Fault, now};
use super::hazards::{self, Clock, QueueOrder};
use super::in_use::Use;
use super::object::{SimObject, cast, make_on};
use super::queue::SimQueue;
use super::worker::{Busy, Work};
use crate::foundation::error::SimError;
use crate::rules;
use crate::runtime::lock;
use block2::RcBlock;
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{DefinedClass, Message, define_class, msg_send};
use objc2_metal::{
    MTLCommandBuffer, MTLCommandBufferErrorOption, MTLCommandBufferHandler, MTLCommandBufferStatus, MTLDispatchType,
    MTLEvent,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

type Handler = RcBlock<dyn Fn(NonNull<ProtocolObject<dyn MTLCommandBuffer>>)>;

struct Record {
    status: MTLCommandBufferStatus,
    /// True while an encoder is open.
    encoding: bool,
    steps: Vec<Step>,
    scheduled: Vec<Handler>,
    completed: Vec<Handler>,
    /// References that keep objects alive, unless the command buffer does without.
    kept: Vec<Retained<AnyObject>>,
    uses: Vec<Use>,
    fault: Option<Fault>,
    /// Start and end on the device, seconds.
    times: (f64, f64),
    /// True once the completion handlers have returned.
    finished: bool,
    /// Steps that are complete once this command buffer is.
    clock: Clock,
}

/// Instance variables of a command buffer.
pub(crate) struct CommandBufferState {
    queue: Retained<SimQueue>,
    retains: bool,
    record: Mutex<Record>,
    changed: Condvar,
}

impl Drop for CommandBufferState {
    fn drop(&mut self) {
        let record = self.record.get_mut().unwrap_or_else(PoisonError::into_inner);
        if record.status == MTLCommandBufferStatus::NotEnqueued {
            self.queue.ivars().core.end();
        }
    }
}

define_class!(
    // SAFETY: SimObject has no requirements for subclasses.
    #[unsafe(super(SimObject, NSObject))]
    #[name = "SimCommandBuffer"]
    #[ivars = CommandBufferState]
    pub(crate) struct SimCommandBuffer;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimCommandBuffer {}

    // SAFETY: the methods have the protocol's signatures.
    unsafe impl MTLCommandBuffer for SimCommandBuffer {
        #[unsafe(method_id(commandQueue))]
        fn command_queue(&self) -> Retained<SimQueue> {
            self.ivars().queue.clone()
        }

        #[unsafe(method(retainedReferences))]
        fn retained_references(&self) -> bool {
            self.ivars().retains
        }

        #[unsafe(method_id(blitCommandEncoder))]
        fn blit_encoder(&self) -> Option<Retained<SimBlitEncoder>> {
            self.open("-[MTLCommandBuffer blitCommandEncoder]");
            Some(SimBlitEncoder::new(self))
        }

        #[unsafe(method_id(computeCommandEncoder))]
        fn compute_encoder(&self) -> Option<Retained<SimComputeEncoder>> {
            self.open("-[MTLCommandBuffer computeCommandEncoder]");
            Some(SimComputeEncoder::new(self, MTLDispatchType::Serial))
        }

        #[unsafe(method_id(computeCommandEncoderWithDispatchType:))]
        fn compute_encoder_with(&self, kind: MTLDispatchType) -> Option<Retained<SimComputeEncoder>> {
            self.open("-[MTLCommandBuffer computeCommandEncoderWithDispatchType:]");
            Some(SimComputeEncoder::new(self, kind))
        }

        #[unsafe(method(encodeSignalEvent:value:))]
        fn signal(&self, event: &ProtocolObject<dyn MTLEvent>, value: u64) {
            let call = "-[MTLCommandBuffer encodeSignalEvent:value:]";
            self.encode_event(event, call, |counter| Step::Signal(counter, value));
        }

        #[unsafe(method(encodeWaitForEvent:value:))]
        fn wait_for(&self, event: &ProtocolObject<dyn MTLEvent>, value: u64) {
            let call = "-[MTLCommandBuffer encodeWaitForEvent:value:]";
            self.encode_event(event, call, |counter| Step::Wait(counter, value));
        }

        #[unsafe(method(addScheduledHandler:))]
        fn add_scheduled_handler(&self, block: MTLCommandBufferHandler) {
            // SAFETY: the caller passes a block.
            let block = unsafe { RcBlock::copy(block) };
            self.recording("-[MTLCommandBuffer addScheduledHandler:]", |record| record.scheduled.extend(block));
        }

        #[unsafe(method(addCompletedHandler:))]
        fn add_completed_handler(&self, block: MTLCommandBufferHandler) {
            // SAFETY: the caller passes a block.
            let block = unsafe { RcBlock::copy(block) };
            self.recording("-[MTLCommandBuffer addCompletedHandler:]", |record| record.completed.extend(block));
        }

        #[unsafe(method(commit))]
        fn commit(&self) {
            self.outside_encoders("-[MTLCommandBuffer commit]", |record| {
                record.status = MTLCommandBufferStatus::Committed;
            });
            let work = Work { command_buffer: self.retain(), after: hazards::host(), busy: Busy::begin() };
            self.ivars().queue.ivars().core.push(work);
        }

        #[unsafe(method(waitUntilScheduled))]
        fn wait_until_scheduled(&self) {
            self.wait_until("-[MTLCommandBuffer waitUntilScheduled]", |record| {
                record.status >= MTLCommandBufferStatus::Scheduled
            });
        }

        #[unsafe(method(waitUntilCompleted))]
        fn wait_until_completed(&self) {
            self.wait_until("-[MTLCommandBuffer waitUntilCompleted]", |record| record.finished);
            hazards::host_saw(&lock(&self.ivars().record).clock);
        }

        #[unsafe(method(status))]
        fn status(&self) -> MTLCommandBufferStatus {
            let record = lock(&self.ivars().record);
            // Only a completed one has a clock.
            hazards::host_saw(&record.clock);
            record.status
        }

        #[unsafe(method_id(error))]
        fn error(&self) -> Option<Retained<SimError>> {
            let record = lock(&self.ivars().record);
            record.fault.as_ref().map(|fault| {
                SimError::new("MTLCommandBufferErrorDomain", fault.code.0 as isize, fault.description.clone())
            })
        }

        #[unsafe(method(errorOptions))]
        fn error_options(&self) -> MTLCommandBufferErrorOption {
            MTLCommandBufferErrorOption::None
        }

        #[unsafe(method(GPUStartTime))]
        fn gpu_start_time(&self) -> f64 {
            lock(&self.ivars().record).times.0
        }

        #[unsafe(method(GPUEndTime))]
        fn gpu_end_time(&self) -> f64 {
            lock(&self.ivars().record).times.1
        }

        #[unsafe(method(pushDebugGroup:))]
        fn push_debug_group(&self, _name: &objc2_foundation::NSString) {}

        #[unsafe(method(popDebugGroup))]
        fn pop_debug_group(&self) {}
    }
);

// SAFETY: the instance variables are synchronized; handlers are called on one thread.
unsafe impl Send for SimCommandBuffer {}
// SAFETY: as above.
unsafe impl Sync for SimCommandBuffer {}

impl SimCommandBuffer {
    pub(crate) fn new(queue: &SimQueue, retains: bool) -> Retained<Self> {
        let record = Record {
            status: MTLCommandBufferStatus::NotEnqueued,
            encoding: false,
            steps: Vec::new(),
            scheduled: Vec::new(),
            completed: Vec::new(),
            kept: Vec::new(),
            uses: Vec::new(),
            fault: None,
            times: (0.0, 0.0),
            finished: false,
            clock: Clock::default(),
        };
        let state =
            CommandBufferState { queue: queue.retain(), retains, record: Mutex::new(record), changed: Condvar::new() };
        make_on!(queue.owner(), SimCommandBuffer, state)
    }

    pub(crate) fn queue_id(&self) -> hazards::QueueId {
        self.ivars().queue.ivars().core.id
    }

    /// Changes what is recorded; breaks a rule once it was committed.
    fn recording<R>(&self, call: &str, change: impl FnOnce(&mut Record) -> R) -> R {
        let status = lock(&self.ivars().record).status;
        rules::require(status == MTLCommandBufferStatus::NotEnqueued, call, || {
            format!("the {} was committed; each serves once", self.label_or("command buffer"))
        });
        change(&mut lock(&self.ivars().record))
    }

    /// Changes what is recorded; breaks a rule once it was committed, or while an encoder is open.
    fn outside_encoders<R>(&self, call: &str, change: impl FnOnce(&mut Record) -> R) -> R {
        let encoding = lock(&self.ivars().record).encoding;
        rules::require(!encoding, call, || "an encoder is still open: endEncoding was not called".into());
        self.recording(call, change)
    }

    fn open(&self, call: &str) {
        self.outside_encoders(call, |record| record.encoding = true);
    }

    /// Takes the pass of an encoder that has ended.
    pub(crate) fn close(&self, pass: Pass) {
        let mut record = lock(&self.ivars().record);
        record.encoding = false;
        record.steps.push(Step::Pass(pass));
    }

    /// Notes that a command uses `object`: keeps it alive, or counts the use of what the caller must keep alive.
    pub(crate) fn refer_to(&self, object: &AnyObject, usage: Use) {
        let mut record = lock(&self.ivars().record);
        if self.ivars().retains {
            record.kept.push(object.retain());
        }
        record.uses.push(usage);
    }

    fn encode_event(
        &self,
        event: &ProtocolObject<dyn MTLEvent>,
        call: &str,
        step: impl FnOnce(Arc<super::event::EventCounter>) -> Step,
    ) {
        let event: &SimEvent = cast(event, call);
        let counter = event.ivars().counter.clone();
        self.outside_encoders(call, |record| record.steps.push(step(counter)));
        self.refer_to(event, event.ivars().uses.begin());
    }

    fn wait_until(&self, call: &str, reached: impl Fn(&Record) -> bool) {
        let mut record = lock(&self.ivars().record);
        if record.status == MTLCommandBufferStatus::NotEnqueued {
            drop(record);
            return rules::broken(call, "it was not committed, so this would wait for ever");
        }
        while !reached(&record) {
            record = self.ivars().changed.wait(record).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs on the queue's thread.
    pub(crate) fn run(&self, order: &mut QueueOrder) {
        let (steps, scheduled) = {
            let mut record = lock(&self.ivars().record);
            record.status = MTLCommandBufferStatus::Scheduled;
            (std::mem::take(&mut record.steps), std::mem::take(&mut record.scheduled))
        };
        self.ivars().changed.notify_all();
        self.call(scheduled);
        let start = now();
        let outcome = execution::run(&steps, order);
        drop(steps);
        self.complete(outcome.err(), (start, now()), order.so_far());
    }

    fn complete(&self, fault: Option<Fault>, times: (f64, f64), clock: Clock) {
        let (completed, kept) = {
            let mut record = lock(&self.ivars().record);
            record.uses.clear();
            record.times = times;
            record.clock = clock;
            record.status = match fault {
                None => MTLCommandBufferStatus::Completed,
                Some(_) => MTLCommandBufferStatus::Error,
            };
            record.fault = fault;
            (std::mem::take(&mut record.completed), std::mem::take(&mut record.kept))
        };
        self.ivars().queue.ivars().core.end();
        drop(kept);
        if !completed.is_empty() {
            // Handlers are the host.
            hazards::host_saw(&lock(&self.ivars().record).clock);
        }
        self.call(completed);
        lock(&self.ivars().record).finished = true;
        self.ivars().changed.notify_all();
    }

    fn call(&self, handlers: Vec<Handler>) {
        let this: &ProtocolObject<dyn MTLCommandBuffer> = ProtocolObject::from_ref(self);
        for handler in handlers {
            // What a handler does wrong was recorded where it happened.
            let _ = catch_unwind(AssertUnwindSafe(|| handler.call((NonNull::from(this),))));
        }
    }
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MTLCommandBufferDescriptor"]
    #[ivars = AtomicBool]
    pub(crate) struct SimCommandBufferDescriptor;

    impl SimCommandBufferDescriptor {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Option<Retained<Self>> {
            let this = this.set_ivars(AtomicBool::new(true));
            // SAFETY: NSObject's init.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method(retainedReferences))]
        fn retained_references(&self) -> bool {
            self.ivars().load(Ordering::Relaxed)
        }

        #[unsafe(method(setRetainedReferences:))]
        fn set_retained_references(&self, retains: bool) {
            self.ivars().store(retains, Ordering::Relaxed);
        }

        #[unsafe(method(errorOptions))]
        fn error_options(&self) -> MTLCommandBufferErrorOption {
            MTLCommandBufferErrorOption::None
        }

        #[unsafe(method(setErrorOptions:))]
        fn set_error_options(&self, _options: MTLCommandBufferErrorOption) {}
    }
);
