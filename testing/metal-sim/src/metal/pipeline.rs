//! `MTLComputePipelineState` and its descriptor.

use super::device::SimDevice;
use super::in_use::Uses;
use super::library::SimFunction;
use super::object::{SimObject, cast, make_on};
use crate::foundation::string::SimString;
use crate::runtime::lock;
use crate::shader::Function;
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{DefinedClass, Message, define_class, msg_send};
use objc2_foundation::NSString;
use objc2_metal::{MTLAllocation, MTLComputePipelineState, MTLFunction};
use std::sync::{Arc, Mutex};

/// Threads of a simdgroup.
const SIMD_WIDTH: usize = 32;

/// Instance variables of a pipeline.
pub(crate) struct PipelineState {
    pub(crate) function: Arc<Function>,
    pub(crate) uses: Uses,
}

impl Drop for PipelineState {
    fn drop(&mut self) {
        self.uses.must_be_over(&format!("the pipeline of {}", self.function.name()));
    }
}

define_class!(
    // SAFETY: SimObject has no requirements for subclasses.
    #[unsafe(super(SimObject, NSObject))]
    #[name = "SimPipeline"]
    #[ivars = PipelineState]
    pub(crate) struct SimPipeline;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimPipeline {}

    // SAFETY: the methods have the protocol's signatures, here and below.
    unsafe impl MTLAllocation for SimPipeline {
        #[unsafe(method(allocatedSize))]
        fn allocated_size(&self) -> usize {
            0
        }
    }

    // SAFETY: as above.
    unsafe impl MTLComputePipelineState for SimPipeline {
        #[unsafe(method(maxTotalThreadsPerThreadgroup))]
        fn max_threads(&self) -> usize {
            self.ivars().function.max_threads()
        }

        #[unsafe(method(threadExecutionWidth))]
        fn simd_width(&self) -> usize {
            SIMD_WIDTH
        }

        #[unsafe(method(staticThreadgroupMemoryLength))]
        fn static_threadgroup_memory(&self) -> usize {
            0
        }
    }
);

// SAFETY: the instance variables are synchronized or never change.
unsafe impl Send for SimPipeline {}
// SAFETY: as above.
unsafe impl Sync for SimPipeline {}

impl SimPipeline {
    pub(crate) fn new(device: &SimDevice, function: &ProtocolObject<dyn MTLFunction>, call: &str) -> Retained<Self> {
        let function: &SimFunction = cast(function, call);
        let state = PipelineState { function: function.ivars().clone(), uses: Uses::default() };
        make_on!(device, SimPipeline, state)
    }
}

/// Instance variables of a pipeline's descriptor.
#[derive(Default)]
pub(crate) struct Description {
    label: Option<String>,
    function: Option<Retained<ProtocolObject<dyn MTLFunction>>>,
    archives: Option<Retained<AnyObject>>,
    max_threads: usize,
    whole_simdgroups: bool,
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MTLComputePipelineDescriptor"]
    #[ivars = Mutex<Description>]
    pub(crate) struct SimPipelineDescriptor;

    impl SimPipelineDescriptor {
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

        #[unsafe(method_id(computeFunction))]
        fn function(&self) -> Option<Retained<ProtocolObject<dyn MTLFunction>>> {
            lock(self.ivars()).function.clone()
        }

        #[unsafe(method(setComputeFunction:))]
        fn set_function(&self, function: Option<&ProtocolObject<dyn MTLFunction>>) {
            lock(self.ivars()).function = function.map(Message::retain);
        }

        #[unsafe(method_id(binaryArchives))]
        fn archives(&self) -> Option<Retained<AnyObject>> {
            lock(self.ivars()).archives.clone()
        }

        #[unsafe(method(setBinaryArchives:))]
        fn set_archives(&self, archives: Option<&AnyObject>) {
            lock(self.ivars()).archives = archives.map(Message::retain);
        }

        #[unsafe(method(maxTotalThreadsPerThreadgroup))]
        fn max_threads(&self) -> usize {
            lock(self.ivars()).max_threads
        }

        #[unsafe(method(setMaxTotalThreadsPerThreadgroup:))]
        fn set_max_threads(&self, threads: usize) {
            lock(self.ivars()).max_threads = threads;
        }

        #[unsafe(method(threadGroupSizeIsMultipleOfThreadExecutionWidth))]
        fn whole_simdgroups(&self) -> bool {
            lock(self.ivars()).whole_simdgroups
        }

        #[unsafe(method(setThreadGroupSizeIsMultipleOfThreadExecutionWidth:))]
        fn set_whole_simdgroups(&self, whole: bool) {
            lock(self.ivars()).whole_simdgroups = whole;
        }
    }
);
