//! Helpers of the tests: objects of the simulated device, and assertions about its rules.
#![allow(dead_code, reason = "each test file uses its part")]

// The bindings link to the simulator's symbols only if the crate is named.
extern crate metal_sim;

use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSString;
use objc2_metal::{
    MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandEncoder, MTLCommandQueue, MTLComputeCommandEncoder,
    MTLComputePipelineState, MTLCreateSystemDefaultDevice, MTLDevice, MTLDispatchType, MTLHeap, MTLHeapDescriptor,
    MTLHeapType, MTLLibrary, MTLResourceOptions, MTLSize, MTLStorageMode,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::time::Duration;

pub(crate) type Device = Retained<ProtocolObject<dyn MTLDevice>>;
pub(crate) type Buffer = Retained<ProtocolObject<dyn MTLBuffer>>;
pub(crate) type Heap = Retained<ProtocolObject<dyn MTLHeap>>;
pub(crate) type Queue = Retained<ProtocolObject<dyn MTLCommandQueue>>;
pub(crate) type CommandBuffer = Retained<ProtocolObject<dyn MTLCommandBuffer>>;
pub(crate) type ComputeEncoder = Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>;
pub(crate) type Pipeline = Retained<ProtocolObject<dyn MTLComputePipelineState>>;

pub(crate) const SHARED: MTLResourceOptions = MTLResourceOptions::StorageModeShared;
pub(crate) const PRIVATE: MTLResourceOptions = MTLResourceOptions::StorageModePrivate;

pub(crate) fn device() -> Device {
    MTLCreateSystemDefaultDevice().expect("there is always a simulated device")
}

pub(crate) fn shared(device: &Device, len: usize) -> Buffer {
    device.newBufferWithLength_options(len, SHARED).expect("memory")
}

/// A placement heap whose hazards nobody tracks.
pub(crate) fn heap(device: &Device, size: usize, storage: MTLStorageMode) -> Heap {
    let descriptor = MTLHeapDescriptor::new();
    descriptor.setSize(size);
    descriptor.setStorageMode(storage);
    descriptor.setType(MTLHeapType::Placement);
    device.newHeapWithDescriptor(&descriptor).expect("memory")
}

pub(crate) fn place(heap: &Heap, len: usize, offset: usize) -> Buffer {
    let options = heap.resourceOptions();
    // SAFETY: every misuse of the offset is the simulator's to report.
    unsafe { heap.newBufferWithLength_options_offset(len, options, offset) }.expect("a place")
}

pub(crate) fn bytes(buffer: &Buffer) -> Vec<u8> {
    // SAFETY: nothing of the device's writes the buffer now.
    unsafe { slice::from_raw_parts(buffer.contents().as_ptr().cast(), buffer.length()) }.to_vec()
}

pub(crate) fn fill(command_buffer: &CommandBuffer, buffer: &Buffer, value: u8) {
    let encoder = command_buffer.blitCommandEncoder().expect("an encoder");
    encoder.fillBuffer_range_value(buffer, (0..buffer.length()).into(), value);
    encoder.endEncoding();
}

pub(crate) fn copy(command_buffer: &CommandBuffer, from: &Buffer, to: &Buffer) {
    let encoder = command_buffer.blitCommandEncoder().expect("an encoder");
    // SAFETY: every misuse of the ranges is the simulator's to report.
    unsafe { encoder.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(from, 0, to, 0, from.length()) };
    encoder.endEncoding();
}

/// Records, commits and waits.
pub(crate) fn run(queue: &Queue, record: impl FnOnce(&CommandBuffer)) -> CommandBuffer {
    let command_buffer = queue.commandBuffer().expect("a command buffer");
    record(&command_buffer);
    command_buffer.commit();
    command_buffer.waitUntilCompleted();
    command_buffer
}

/// Compiles the kernel `name` of some MSL; the headers come before it.
pub(crate) fn pipeline(device: &Device, name: &str, msl: &str) -> Pipeline {
    let source = format!("#include <metal_stdlib>\nusing namespace metal;\n{msl}");
    let library = device.newLibraryWithSource_options_error(&NSString::from_str(&source), None);
    let library = library.unwrap_or_else(|error| panic!("{}", error.localizedDescription()));
    let function = library.newFunctionWithName(&NSString::from_str(name)).expect("a kernel of that name");
    device.newComputePipelineStateWithFunction_error(&function).expect("a pipeline")
}

/// `to[i] = from[i] + 1`, words, one thread each.
pub(crate) fn successor(device: &Device) -> Pipeline {
    let msl = "kernel void successor(device uint const* from [[buffer(0)]], device uint* to [[buffer(1)]], \
               uint i [[thread_position_in_grid]]) { to[i] = from[i] + 1; }";
    pipeline(device, "successor", msl)
}

pub(crate) fn compute(command_buffer: &CommandBuffer, kind: MTLDispatchType) -> ComputeEncoder {
    command_buffer.computeCommandEncoderWithDispatchType(kind).expect("an encoder")
}

/// Binds buffers from index 0 on.
pub(crate) fn bind(encoder: &ComputeEncoder, pipeline: &Pipeline, buffers: &[&Buffer]) {
    encoder.setComputePipelineState(pipeline);
    for (index, buffer) in buffers.iter().enumerate() {
        // SAFETY: every misuse of the index is the simulator's to report.
        unsafe { encoder.setBuffer_offset_atIndex(Some(buffer), 0, index) };
    }
}

/// Dispatches threadgroups along x.
pub(crate) fn dispatch(encoder: &ComputeEncoder, groups: usize, threads: usize) {
    let along_x = |width| MTLSize { width, height: 1, depth: 1 };
    encoder.dispatchThreadgroups_threadsPerThreadgroup(along_x(groups), along_x(threads));
}

/// Lets `record` write a compute pass, and ends it whatever becomes of that.
pub(crate) fn pass(command_buffer: &CommandBuffer, kind: MTLDispatchType, record: impl FnOnce(&ComputeEncoder)) {
    let encoder = compute(command_buffer, kind);
    let outcome = catch_unwind(AssertUnwindSafe(|| record(&encoder)));
    encoder.endEncoding();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `f` in a pool; asserts that it breaks a rule in the calling thread whose report contains `expected`.
pub(crate) fn breaks(expected: &str, f: impl FnOnce()) {
    let outcome = catch_unwind(AssertUnwindSafe(|| autoreleasepool(|_| f())));
    let reports = metal_sim::take_violations();
    assert!(outcome.is_err(), "nothing panicked; expected {expected:?}");
    assert!(reports.iter().any(|report| report.contains(expected)), "{reports:?} lacks {expected:?}");
}

/// Runs `f` in a pool; asserts that something it commits breaks a rule on the device whose report contains `expected`.
pub(crate) fn breaks_on_device(expected: &str, f: impl FnOnce()) {
    autoreleasepool(|_| f());
    metal_sim::drain(Duration::from_secs(10));
    let reports = metal_sim::take_violations();
    assert!(reports.iter().any(|report| report.contains(expected)), "{reports:?} lacks {expected:?}");
}

/// Runs `f` in a pool; asserts that it breaks no rule.
pub(crate) fn keeps_the_rules_so_far(f: impl FnOnce()) {
    autoreleasepool(|_| f());
    metal_sim::drain(Duration::from_secs(10));
    assert_eq!(metal_sim::take_violations(), Vec::<String>::new());
}

/// Runs `f` in a pool; asserts that it breaks no rule and leaves no object behind.
pub(crate) fn keeps_the_rules(f: impl FnOnce()) {
    keeps_the_rules_so_far(f);
    assert_eq!(metal_sim::leaks(), Vec::<String>::new());
}
