//! `MTLDevice`.

use super::archive::SimArchive;
use super::buffer::{BufferState, Bytes, Deallocator, Mode, SimBuffer};
use super::event::{EventState, SimEvent};
use super::fence::{FenceState, SimFence};
use super::heap::{self, SimHeap};
use super::in_use::Uses;
use super::library::SimLibrary;
use super::memory::{self, Mapping};
use super::object::make_on;
use super::pipeline::SimPipeline;
use super::queue::{self, SimQueue};
use super::residency::SimResidencySet;
use crate::foundation::data::SimData;
use crate::foundation::error::SimError;
use crate::foundation::make;
use crate::foundation::string::SimString;
use crate::{faults, rules};
use block2::DynBlock;
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{DefinedClass, define_class};
use objc2_foundation::NSString;
use objc2_metal::{
    MTLBinaryArchiveDescriptor, MTLCommandQueueDescriptor, MTLCompileOptions, MTLComputePipelineDescriptor, MTLDevice,
    MTLFunction, MTLGPUFamily, MTLHazardTrackingMode, MTLHeapDescriptor, MTLPipelineOption, MTLResidencySetDescriptor,
    MTLResourceOptions, MTLSize, MTLSizeAndAlign, MTLStorageMode, MTLTimestamp,
};
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// The longest buffer, bytes.
const MAX_BUFFER: usize = 1 << 30;
/// Threads that a threadgroup may have.
const MAX_THREADS: usize = 1024;

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "SimDevice"]
    #[ivars = ()]
    pub(crate) struct SimDevice;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimDevice {}

    // SAFETY: the methods have the protocol's signatures.
    unsafe impl MTLDevice for SimDevice {
        #[unsafe(method_id(name))]
        fn name(&self) -> Retained<SimString> {
            SimString::new("metal-sim")
        }

        #[unsafe(method(registryID))]
        fn registry_id(&self) -> u64 {
            1
        }

        #[unsafe(method(supportsFamily:))]
        fn supports_family(&self, family: MTLGPUFamily) -> bool {
            let apple = (MTLGPUFamily::Apple1..=MTLGPUFamily::Apple7).contains(&family);
            apple && faults::unified_memory() || family == MTLGPUFamily::Mac2 || family == MTLGPUFamily::Metal3
        }

        #[unsafe(method(hasUnifiedMemory))]
        fn has_unified_memory(&self) -> bool {
            faults::unified_memory()
        }

        #[unsafe(method(isLowPower))]
        fn is_low_power(&self) -> bool {
            false
        }

        #[unsafe(method(isRemovable))]
        fn is_removable(&self) -> bool {
            false
        }

        #[unsafe(method(isHeadless))]
        fn is_headless(&self) -> bool {
            false
        }

        #[unsafe(method(recommendedMaxWorkingSetSize))]
        fn recommended_working_set(&self) -> u64 {
            faults::working_set()
        }

        #[unsafe(method(currentAllocatedSize))]
        fn current_allocated_size(&self) -> usize {
            memory::allocated()
        }

        #[unsafe(method(maxBufferLength))]
        fn max_buffer_length(&self) -> usize {
            MAX_BUFFER
        }

        #[unsafe(method(maxThreadgroupMemoryLength))]
        fn max_threadgroup_memory(&self) -> usize {
            super::bindings::THREADGROUP_MEMORY
        }

        #[unsafe(method(maxThreadsPerThreadgroup))]
        fn max_threads(&self) -> MTLSize {
            MTLSize { width: MAX_THREADS, height: MAX_THREADS, depth: MAX_THREADS }
        }

        #[unsafe(method(sampleTimestamps:gpuTimestamp:))]
        fn sample_timestamps(&self, host: NonNull<MTLTimestamp>, device: NonNull<MTLTimestamp>) {
            let now = (super::execution::now() * 1e9) as MTLTimestamp;
            // SAFETY: the caller passes two writable timestamps.
            unsafe {
                host.write(now);
                device.write(now);
            }
        }

        #[unsafe(method(heapBufferSizeAndAlignWithLength:options:))]
        fn placement(&self, len: usize, _options: MTLResourceOptions) -> MTLSizeAndAlign {
            heap::placement(len)
        }

        #[unsafe(method_id(newHeapWithDescriptor:))]
        fn new_heap(&self, descriptor: &MTLHeapDescriptor) -> Option<Retained<SimHeap>> {
            SimHeap::new(self, descriptor)
        }

        #[unsafe(method_id(newBufferWithLength:options:))]
        fn new_buffer(&self, len: usize, options: MTLResourceOptions) -> Option<Retained<SimBuffer>> {
            self.buffer(len, options, "-[MTLDevice newBufferWithLength:options:]")
        }

        #[unsafe(method_id(newBufferWithBytes:length:options:))]
        fn new_buffer_with(
            &self,
            bytes: NonNull<c_void>,
            len: usize,
            options: MTLResourceOptions,
        ) -> Option<Retained<SimBuffer>> {
            let buffer = self.buffer(len, options, "-[MTLDevice newBufferWithBytes:length:options:]");
            if let Some(buffer) = &buffer {
                // SAFETY: the caller passes `len` readable bytes, and the buffer is new.
                unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), buffer.ivars().bytes.at(&(0..len)), len) };
            }
            buffer
        }

        #[unsafe(method_id(newBufferWithBytesNoCopy:length:options:deallocator:))]
        fn new_buffer_over(
            &self,
            bytes: NonNull<c_void>,
            len: usize,
            options: MTLResourceOptions,
            deallocator: Option<&DynBlock<dyn Fn(NonNull<c_void>, usize)>>,
        ) -> Option<Retained<SimBuffer>> {
            let call = "-[MTLDevice newBufferWithBytesNoCopy:length:options:deallocator:]";
            let page = memory::page();
            let whole = bytes.addr().get().is_multiple_of(page) && len.is_multiple_of(page) && len > 0;
            rules::require(whole, call, || format!("{len} bytes at {bytes:?} are not whole pages of {page} bytes"));
            let mode = self.mode(options, call);
            rules::require(mode.storage != MTLStorageMode::Private, call, || {
                "private storage is not the host's".into()
            });
            may_allocate().then(|| {
                let mapping = Mapping::borrowed(bytes.as_ptr().cast(), len);
                self.buffer_on(mapping, len, mode, deallocator.map(DynBlock::copy))
            })
        }

        #[unsafe(method_id(newCommandQueue))]
        fn new_queue(&self) -> Option<Retained<SimQueue>> {
            Some(SimQueue::new(self, queue::DEFAULT_LIMIT))
        }

        #[unsafe(method_id(newCommandQueueWithMaxCommandBufferCount:))]
        fn new_queue_for(&self, limit: usize) -> Option<Retained<SimQueue>> {
            Some(SimQueue::new(self, limit))
        }

        #[unsafe(method_id(newCommandQueueWithDescriptor:))]
        fn new_queue_with(&self, descriptor: &MTLCommandQueueDescriptor) -> Option<Retained<SimQueue>> {
            Some(SimQueue::new(self, descriptor.maxCommandBufferCount()))
        }

        #[unsafe(method_id(newEvent))]
        fn new_event(&self) -> Option<Retained<SimEvent>> {
            Some(make_on!(self, SimEvent, EventState::default()))
        }

        #[unsafe(method_id(newSharedEvent))]
        fn new_shared_event(&self) -> Option<Retained<SimEvent>> {
            Some(make_on!(self, SimEvent, EventState::default()))
        }

        #[unsafe(method_id(newFence))]
        fn new_fence(&self) -> Option<Retained<SimFence>> {
            Some(make_on!(self, SimFence, FenceState::default()))
        }

        #[unsafe(method_id(newLibraryWithSource:options:error:))]
        fn new_library(
            &self,
            source: &NSString,
            _options: Option<&MTLCompileOptions>,
            error: *mut *mut AnyObject,
        ) -> Option<Retained<SimLibrary>> {
            or_error(SimLibrary::compile(self, &source.to_string()), error)
        }

        #[unsafe(method_id(newLibraryWithData:error:))]
        fn new_library_from(&self, data: &AnyObject, error: *mut *mut AnyObject) -> Option<Retained<SimLibrary>> {
            let msl = data.downcast_ref::<SimData>().and_then(SimData::msl);
            let library =
                msl.ok_or_else(|| failure("the data is not a library")).and_then(|msl| SimLibrary::compile(self, msl));
            or_error(library, error)
        }

        #[unsafe(method_id(newComputePipelineStateWithFunction:error:))]
        fn new_pipeline(
            &self,
            function: &ProtocolObject<dyn MTLFunction>,
            _error: *mut *mut AnyObject,
        ) -> Option<Retained<SimPipeline>> {
            Some(SimPipeline::new(self, function, "-[MTLDevice newComputePipelineStateWithFunction:error:]"))
        }

        #[unsafe(method_id(newComputePipelineStateWithDescriptor:options:reflection:error:))]
        fn new_pipeline_with(
            &self,
            descriptor: &MTLComputePipelineDescriptor,
            _options: MTLPipelineOption,
            _reflection: *mut *mut AnyObject,
            error: *mut *mut AnyObject,
        ) -> Option<Retained<SimPipeline>> {
            let call = "-[MTLDevice newComputePipelineStateWithDescriptor:options:reflection:error:]";
            let function = descriptor.computeFunction();
            let pipeline = function.map(|function| SimPipeline::new(self, &function, call));
            or_error(pipeline.ok_or_else(|| failure("the descriptor has no function")), error)
        }

        #[unsafe(method_id(newResidencySetWithDescriptor:error:))]
        fn new_residency_set(
            &self,
            _descriptor: &MTLResidencySetDescriptor,
            _error: *mut *mut AnyObject,
        ) -> Option<Retained<SimResidencySet>> {
            Some(SimResidencySet::new(self))
        }

        #[unsafe(method_id(newBinaryArchiveWithDescriptor:error:))]
        fn new_archive(
            &self,
            descriptor: &MTLBinaryArchiveDescriptor,
            error: *mut *mut AnyObject,
        ) -> Option<Retained<SimArchive>> {
            or_error(SimArchive::open(self, descriptor.url().as_deref()), error)
        }
    }
);

// SAFETY: it has no state of its own.
unsafe impl Send for SimDevice {}
// SAFETY: as above.
unsafe impl Sync for SimDevice {}

impl SimDevice {
    /// Decodes the options of a buffer outside heaps; breaks a rule if its storage mode is not simulated.
    fn mode(&self, options: MTLResourceOptions, call: &str) -> Mode {
        let mode = Mode::of(options).with_default_hazards(MTLHazardTrackingMode::Tracked);
        rules::require(matches!(mode.storage, MTLStorageMode::Private | MTLStorageMode::Shared), call, || {
            format!("{:?} is not simulated", mode.storage)
        });
        mode
    }

    fn buffer(&self, len: usize, options: MTLResourceOptions, call: &str) -> Option<Retained<SimBuffer>> {
        rules::require((1..=MAX_BUFFER).contains(&len), call, || {
            format!("length {len}; 1 to {MAX_BUFFER} are possible")
        });
        let mode = self.mode(options, call);
        if !may_allocate() {
            return None;
        }
        let mapping = Mapping::new(len).ok()?;
        mapping.poison(0, len);
        Some(self.buffer_on(mapping, len, mode, None))
    }

    fn buffer_on(
        &self,
        mapping: Mapping,
        len: usize,
        mode: Mode,
        deallocator: Option<Deallocator>,
    ) -> Retained<SimBuffer> {
        let bytes = Arc::new(Bytes { mapping: Arc::new(mapping), offset: 0, len, mode });
        make_on!(self, SimBuffer, BufferState { bytes, heap: None, deallocator, uses: Uses::default() })
    }
}

/// False if a fault was asked for.
pub(crate) fn may_allocate() -> bool {
    !faults::refuses_allocation() && !faults::is_lost()
}

fn failure(message: &str) -> Retained<SimError> {
    SimError::new("MTLLibraryErrorDomain", 1, message.to_owned())
}

fn or_error<T>(result: Result<T, Retained<SimError>>, error: *mut *mut AnyObject) -> Option<T> {
    result.map_err(|failure| SimError::write(failure, error)).ok()
}

#[unsafe(no_mangle)]
extern "C-unwind" fn MTLCreateSystemDefaultDevice() -> *mut ProtocolObject<dyn MTLDevice> {
    Retained::into_raw(ProtocolObject::from_retained(make!(SimDevice, ())))
}
