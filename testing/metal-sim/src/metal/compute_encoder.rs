//! `MTLComputeCommandEncoder`: binds and dispatches.

use super::bindings::Bindings;
use super::buffer::SimBuffer;
use super::command::{Command, Groups, PassKind};
use super::command_buffer::SimCommandBuffer;
use super::encoding::Encoding;
use super::heap::SimHeap;
use super::object::{SimObject, cast, make_on};
use super::pipeline::SimPipeline;
use crate::rules;
use crate::runtime::lock;
use objc2::rc::Retained;
use objc2::runtime::{NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{DefinedClass, define_class};
use objc2_foundation::{NSRange, NSString};
use objc2_metal::{
    MTLBarrierScope, MTLBuffer, MTLCommandEncoder, MTLComputeCommandEncoder, MTLComputePipelineState, MTLDispatchType,
    MTLFence, MTLHeap, MTLResource, MTLResourceUsage, MTLSize, MTLStages,
};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::slice;
use std::sync::Mutex;

/// Instance variables of a compute encoder.
pub(crate) struct ComputeState {
    encoding: Encoding,
    kind: MTLDispatchType,
    bindings: Mutex<Bindings>,
}

define_class!(
    // SAFETY: SimObject has no requirements for subclasses.
    #[unsafe(super(SimObject, NSObject))]
    #[name = "SimComputeEncoder"]
    #[ivars = ComputeState]
    pub(crate) struct SimComputeEncoder;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for SimComputeEncoder {}

    // SAFETY: the methods have the protocol's signatures, here and below.
    unsafe impl MTLCommandEncoder for SimComputeEncoder {
        #[unsafe(method(endEncoding))]
        fn end(&self) {
            self.ivars().encoding.end("-[MTLComputeCommandEncoder endEncoding]", self.label_or("compute pass"));
        }

        #[unsafe(method(barrierAfterQueueStages:beforeStages:))]
        fn queue_barrier(&self, _after: MTLStages, _before: MTLStages) {
            let call = "-[MTLComputeCommandEncoder barrierAfterQueueStages:beforeStages:]";
            self.ivars().encoding.record(call, Command::QueueBarrier);
        }

        #[unsafe(method(insertDebugSignpost:))]
        fn insert_debug_signpost(&self, _name: &NSString) {}

        #[unsafe(method(pushDebugGroup:))]
        fn push_debug_group(&self, _name: &NSString) {}

        #[unsafe(method(popDebugGroup))]
        fn pop_debug_group(&self) {}
    }

    // SAFETY: as above.
    unsafe impl MTLComputeCommandEncoder for SimComputeEncoder {
        #[unsafe(method(dispatchType))]
        fn dispatch_type(&self) -> MTLDispatchType {
            self.ivars().kind
        }

        #[unsafe(method(setComputePipelineState:))]
        fn set_pipeline(&self, pipeline: &ProtocolObject<dyn MTLComputePipelineState>) {
            let call = "-[MTLComputeCommandEncoder setComputePipelineState:]";
            self.ivars().encoding.must_be_open(call);
            let pipeline: &SimPipeline = cast(pipeline, call);
            self.ivars().encoding.refer_to(pipeline, pipeline.ivars().uses.begin());
            lock(&self.ivars().bindings).set_pipeline(pipeline);
        }

        #[unsafe(method(setBuffer:offset:atIndex:))]
        fn set_buffer(&self, buffer: Option<&ProtocolObject<dyn MTLBuffer>>, offset: usize, index: usize) {
            self.bind(buffer, offset, index, "-[MTLComputeCommandEncoder setBuffer:offset:atIndex:]");
        }

        #[unsafe(method(setBuffers:offsets:withRange:))]
        fn set_buffers(
            &self,
            buffers: NonNull<*const ProtocolObject<dyn MTLBuffer>>,
            offsets: NonNull<usize>,
            range: NSRange,
        ) {
            let call = "-[MTLComputeCommandEncoder setBuffers:offsets:withRange:]";
            for position in 0..range.length {
                // SAFETY: the caller passes `range.length` buffers, each null or alive, and as many offsets.
                let (buffer, offset) =
                    unsafe { ((*buffers.as_ptr().add(position)).as_ref(), *offsets.as_ptr().add(position)) };
                self.bind(buffer, offset, range.location + position, call);
            }
        }

        #[unsafe(method(setBufferOffset:atIndex:))]
        fn set_buffer_offset(&self, offset: usize, index: usize) {
            let call = "-[MTLComputeCommandEncoder setBufferOffset:atIndex:]";
            self.ivars().encoding.must_be_open(call);
            lock(&self.ivars().bindings).set_offset(offset, index, call);
        }

        #[unsafe(method(setBytes:length:atIndex:))]
        fn set_bytes(&self, bytes: NonNull<c_void>, length: usize, index: usize) {
            let call = "-[MTLComputeCommandEncoder setBytes:length:atIndex:]";
            self.ivars().encoding.must_be_open(call);
            rules::require((1..=4096).contains(&length), call, || format!("{length} bytes; 1 to 4096 may be set"));
            // SAFETY: the caller passes `length` readable bytes.
            let bytes = unsafe { slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), length) };
            lock(&self.ivars().bindings).set_bytes(bytes, index, call);
        }

        #[unsafe(method(setThreadgroupMemoryLength:atIndex:))]
        fn set_threadgroup_memory(&self, length: usize, index: usize) {
            let call = "-[MTLComputeCommandEncoder setThreadgroupMemoryLength:atIndex:]";
            self.ivars().encoding.must_be_open(call);
            lock(&self.ivars().bindings).set_threadgroup_memory(length, index, call);
        }

        #[unsafe(method(dispatchThreadgroups:threadsPerThreadgroup:))]
        fn dispatch_threadgroups(&self, groups: MTLSize, threads: MTLSize) {
            let call = "-[MTLComputeCommandEncoder dispatchThreadgroups:threadsPerThreadgroup:]";
            self.ivars().encoding.must_be_open(call);
            let groups = size(groups, "threadgroupsPerGrid", call);
            self.dispatch(Groups::Fixed(groups), threads, call);
        }

        #[unsafe(method(dispatchThreads:threadsPerThreadgroup:))]
        fn dispatch_threads(&self, grid: MTLSize, threads: MTLSize) {
            let call = "-[MTLComputeCommandEncoder dispatchThreads:threadsPerThreadgroup:]";
            self.ivars().encoding.must_be_open(call);
            let (grid, group) = (size(grid, "threadsPerGrid", call), size(threads, "threadsPerThreadgroup", call));
            let whole = (0..3).all(|axis| grid[axis].is_multiple_of(group[axis]));
            rules::require(whole, call, || format!("partial threadgroups are not simulated: {grid:?} by {group:?}"));
            self.dispatch(Groups::Fixed([0, 1, 2].map(|axis: usize| grid[axis] / group[axis])), threads, call);
        }

        #[unsafe(method(dispatchThreadgroupsWithIndirectBuffer:indirectBufferOffset:threadsPerThreadgroup:))]
        fn dispatch_indirect(&self, buffer: &ProtocolObject<dyn MTLBuffer>, offset: usize, threads: MTLSize) {
            let call = "-[MTLComputeCommandEncoder dispatchThreadgroupsWithIndirectBuffer:indirectBufferOffset:\
                        threadsPerThreadgroup:]";
            self.ivars().encoding.must_be_open(call);
            rules::require(offset.is_multiple_of(4), call, || format!("offset {offset} is not a multiple of 4"));
            let buffer = SimBuffer::from(buffer, call);
            let slice = buffer.slice(offset, size_of::<[u32; 3]>(), call);
            self.ivars().encoding.refer_to(buffer, buffer.ivars().uses.begin());
            self.dispatch(Groups::Indirect(slice), threads, call);
        }

        #[unsafe(method(updateFence:))]
        fn update_fence(&self, fence: &ProtocolObject<dyn MTLFence>) {
            self.ivars().encoding.update_fence(fence, "-[MTLComputeCommandEncoder updateFence:]");
        }

        #[unsafe(method(waitForFence:))]
        fn wait_for_fence(&self, fence: &ProtocolObject<dyn MTLFence>) {
            self.ivars().encoding.wait_for_fence(fence, "-[MTLComputeCommandEncoder waitForFence:]");
        }

        #[unsafe(method(useResource:usage:))]
        fn use_resource(&self, resource: &ProtocolObject<dyn MTLResource>, usage: MTLResourceUsage) {
            let call = "-[MTLComputeCommandEncoder useResource:usage:]";
            self.ivars().encoding.must_be_open(call);
            rules::require(!usage.is_empty(), call, || "neither a read nor a write".into());
            let buffer: &SimBuffer = cast(resource, call);
            self.ivars().encoding.refer_to(buffer, buffer.ivars().uses.begin());
        }

        #[unsafe(method(useHeap:))]
        fn use_heap(&self, heap: &ProtocolObject<dyn MTLHeap>) {
            let call = "-[MTLComputeCommandEncoder useHeap:]";
            self.ivars().encoding.must_be_open(call);
            let _: &SimHeap = cast(heap, call);
        }

        #[unsafe(method(memoryBarrierWithScope:))]
        fn memory_barrier(&self, scope: MTLBarrierScope) {
            let call = "-[MTLComputeCommandEncoder memoryBarrierWithScope:]";
            rules::require(scope.contains(MTLBarrierScope::Buffers), call, || {
                format!("{scope:?} orders no buffers, and there is nothing else to order")
            });
            self.ivars().encoding.record(call, Command::Barrier);
        }

        #[unsafe(method(memoryBarrierWithResources:count:))]
        fn memory_barrier_on(&self, resources: NonNull<NonNull<ProtocolObject<dyn MTLResource>>>, count: usize) {
            let call = "-[MTLComputeCommandEncoder memoryBarrierWithResources:count:]";
            // SAFETY: the caller passes `count` resources.
            let resources = unsafe { slice::from_raw_parts(resources.as_ptr(), count) };
            let buffers = resources.iter().map(|resource| {
                // SAFETY: as above.
                let buffer: &SimBuffer = cast(unsafe { resource.as_ref() }, call);
                buffer.ivars().bytes.clone()
            });
            self.ivars().encoding.record(call, Command::BarrierOn(buffers.collect()));
        }
    }
);

impl SimComputeEncoder {
    pub(crate) fn new(command_buffer: &SimCommandBuffer, kind: MTLDispatchType) -> Retained<Self> {
        let pass = if kind == MTLDispatchType::Concurrent { PassKind::Concurrent } else { PassKind::Serial };
        let encoding = Encoding::new(command_buffer, "compute pass", pass);
        make_on!(command_buffer.owner(), SimComputeEncoder, ComputeState { encoding, kind, bindings: Mutex::default() })
    }

    fn bind(&self, buffer: Option<&ProtocolObject<dyn MTLBuffer>>, offset: usize, index: usize, call: &str) {
        let ComputeState { encoding, bindings, .. } = self.ivars();
        encoding.must_be_open(call);
        let buffer = buffer.map(|buffer| SimBuffer::from(buffer, call));
        if let Some(buffer) = buffer {
            encoding.refer_to(buffer, buffer.ivars().uses.begin());
        }
        lock(bindings).set_buffer(buffer, offset, index, call);
    }

    fn dispatch(&self, groups: Groups, threads: MTLSize, call: &str) {
        let threads = size(threads, "threadsPerThreadgroup", call);
        let dispatch = lock(&self.ivars().bindings).dispatch(groups, threads, call);
        if let Some(dispatch) = dispatch {
            self.ivars().encoding.record(call, Command::Dispatch(dispatch));
        }
    }
}

/// A size in numbers of 32 bits, none of them 0.
fn size(size: MTLSize, name: &str, call: &str) -> [u32; 3] {
    let numbers = [size.width, size.height, size.depth];
    rules::require(numbers.iter().all(|&number| (1..=u32::MAX as usize).contains(&number)), call, || {
        format!("{name} is {numbers:?}")
    });
    numbers.map(|number| number as u32)
}
