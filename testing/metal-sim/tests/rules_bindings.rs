//! Rules of what a dispatch binds, each broken on purpose.
mod common;

use common::*;
use dispatch2::DispatchData;
use objc2::runtime::ProtocolObject;
use objc2_metal::*;
use std::ffi::c_void;
use std::ptr::NonNull;

const SCALE: &str = "
    struct Params { uint4 values; };
    typedef uint Room[32];
    kernel void scale(device uint* data [[buffer(0)]], constant Params& params [[buffer(1)]],
                      threadgroup Room& room, uint i [[thread_position_in_grid]],
                      uint t [[thread_index_in_threadgroup]]) {
        room[t] = data[i];
        threadgroup_barrier(mem_flags::mem_threadgroup);
        data[i] = room[t] * params.values.x;
    }";

/// Lets `record` write a pass of a kernel that takes a buffer, parameters and threadgroup memory.
fn with_pass(record: impl FnOnce(&ComputeEncoder, &Pipeline, &Buffer)) {
    let device = device();
    let (pipeline, buffer) = (pipeline(&device, "scale", SCALE), shared(&device, 256));
    let command_buffer = device.newCommandQueue().and_then(|queue| queue.commandBuffer()).expect("a command buffer");
    pass(&command_buffer, MTLDispatchType::Serial, |encoder| record(encoder, &pipeline, &buffer));
}

fn set_bytes(encoder: &ComputeEncoder, bytes: &[u8], index: usize) {
    let start = NonNull::from(bytes).cast::<c_void>();
    // SAFETY: every misuse of the length and the index is the simulator's to report.
    unsafe { encoder.setBytes_length_atIndex(start, bytes.len(), index) };
}

fn set_room(encoder: &ComputeEncoder, len: usize, index: usize) {
    // SAFETY: as above.
    unsafe { encoder.setThreadgroupMemoryLength_atIndex(len, index) };
}

fn set_buffer(encoder: &ComputeEncoder, buffer: &Buffer, offset: usize, index: usize) {
    // SAFETY: as above.
    unsafe { encoder.setBuffer_offset_atIndex(Some(buffer), offset, index) };
}

fn bind_all(encoder: &ComputeEncoder, pipeline: &Pipeline, buffer: &Buffer) {
    bind(encoder, pipeline, &[buffer]);
    set_bytes(encoder, &[2; 16], 1);
    set_room(encoder, 256, 0);
}

#[test]
fn what_is_bound_reaches_the_kernel() {
    keeps_the_rules(|| {
        let device = device();
        let (pipeline, buffer) = (pipeline(&device, "scale", SCALE), shared(&device, 256));
        assert_eq!((pipeline.threadExecutionWidth(), pipeline.maxTotalThreadsPerThreadgroup()), (32, 1024));
        let queue = device.newCommandQueue().expect("a queue");
        run(&queue, |command_buffer| fill(command_buffer, &buffer, 1));
        run(&queue, |command_buffer| {
            pass(command_buffer, MTLDispatchType::Serial, |encoder| {
                bind(encoder, &pipeline, &[&buffer]);
                set_bytes(encoder, &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1);
                set_room(encoder, 128, 0);
                dispatch(encoder, 1, 32);
                // SAFETY: the offset is within the buffer.
                unsafe { encoder.setBufferOffset_atIndex(128, 0) };
                set_bytes(encoder, &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1);
                dispatch(encoder, 1, 32);
            });
        });
        let result = bytes(&buffer);
        assert_eq!((&result[..128], &result[128..]), (&[3; 128][..], &[5; 128][..]));
    });
}

#[test]
fn an_indirect_dispatch_reads_its_groups_on_the_device() {
    keeps_the_rules(|| {
        let device = device();
        let (from, to, groups) = (shared(&device, 256), shared(&device, 256), shared(&device, 12));
        // SAFETY: the buffer has twelve bytes, and nobody else uses it.
        unsafe { groups.contents().cast::<[u32; 3]>().write([2, 1, 1]) };
        let queue = device.newCommandQueue().expect("a queue");
        run(&queue, |command_buffer| {
            fill(command_buffer, &from, 0);
            pass(command_buffer, MTLDispatchType::Serial, |encoder| {
                bind(encoder, &successor(&device), &[&from, &to]);
                let threads = MTLSize { width: 16, height: 1, depth: 1 };
                // SAFETY: the buffer holds three words at 0.
                unsafe {
                    encoder.dispatchThreadgroupsWithIndirectBuffer_indirectBufferOffset_threadsPerThreadgroup(
                        &groups, 0, threads,
                    );
                }
            });
        });
        assert_eq!(bytes(&to)[..128], [1, 0, 0, 0].repeat(32));
        assert_eq!(bytes(&to)[128..], [0xA5; 128]);
    });
}

#[test]
fn a_dispatch_needs_a_pipeline() {
    breaks("dispatchThreadgroups:threadsPerThreadgroup:]: no pipeline is set", || {
        with_pass(|encoder, _, _| dispatch(encoder, 1, 32));
    });
}

#[test]
fn every_argument_is_bound() {
    breaks("scale: nothing is bound at index 1 (params)", || {
        with_pass(|encoder, pipeline, buffer| {
            bind(encoder, pipeline, &[buffer]);
            set_room(encoder, 256, 0);
            dispatch(encoder, 1, 32);
        });
    });
    breaks("scale: 0 bytes of threadgroup memory at index 0", || {
        with_pass(|encoder, pipeline, buffer| {
            bind(encoder, pipeline, &[buffer]);
            set_bytes(encoder, &[0; 16], 1);
            dispatch(encoder, 1, 32);
        });
    });
}

#[test]
fn arguments_are_long_enough() {
    breaks("scale: 8 bytes at index 1 (params), 16 needed", || {
        with_pass(|encoder, pipeline, buffer| {
            bind_all(encoder, pipeline, buffer);
            set_bytes(encoder, &[0; 8], 1);
            dispatch(encoder, 1, 32);
        });
    });
}

#[test]
fn set_bytes_takes_up_to_4096() {
    breaks("setBytes:length:atIndex:]: 4097 bytes", || with_pass(|encoder, _, _| set_bytes(encoder, &[0; 4097], 0)));
    breaks("setBytes:length:atIndex:]: 0 bytes", || with_pass(|encoder, _, _| set_bytes(encoder, &[], 0)));
}

#[test]
fn indices_go_up_to_30() {
    breaks("buffer index 31 is over 30", || with_pass(|encoder, _, buffer| set_buffer(encoder, buffer, 0, 31)));
    breaks("threadgroup index 31 is over 30", || with_pass(|encoder, _, _| set_room(encoder, 16, 31)));
}

#[test]
fn offsets_are_aligned_and_inside() {
    breaks("offset 2 is not a multiple of 4", || with_pass(|encoder, _, buffer| set_buffer(encoder, buffer, 2, 0)));
    breaks("offset 256 in a buffer of 256 bytes", || {
        with_pass(|encoder, _, buffer| set_buffer(encoder, buffer, 256, 0));
    });
    breaks("setBufferOffset:atIndex:]: no buffer is bound at index 3", || {
        // SAFETY: as above.
        with_pass(|encoder, _, _| unsafe { encoder.setBufferOffset_atIndex(0, 3) });
    });
}

#[test]
fn threadgroup_memory_is_in_units_of_16_and_limited() {
    breaks("length 24 is not a multiple of 16", || with_pass(|encoder, _, _| set_room(encoder, 24, 0)));
    breaks("32784 bytes of threadgroup memory; the device has 32768", || {
        with_pass(|encoder, _, _| {
            set_room(encoder, 32768, 0);
            set_room(encoder, 16, 1);
        });
    });
}

#[test]
fn sizes_are_within_limits() {
    breaks("1025 threads per threadgroup; scale takes up to 1024", || {
        with_pass(|encoder, pipeline, buffer| {
            bind_all(encoder, pipeline, buffer);
            dispatch(encoder, 1, 1025);
        });
    });
    breaks("threadgroupsPerGrid is [0, 1, 1]", || {
        with_pass(|encoder, pipeline, buffer| {
            bind_all(encoder, pipeline, buffer);
            dispatch(encoder, 0, 32);
        });
    });
}

#[test]
fn threadgroups_are_whole() {
    let threads = |width| MTLSize { width, height: 1, depth: 1 };
    breaks("dispatchThreads:threadsPerThreadgroup:]: partial threadgroups are not simulated", || {
        with_pass(|encoder, pipeline, buffer| {
            bind_all(encoder, pipeline, buffer);
            encoder.dispatchThreads_threadsPerThreadgroup(threads(33), threads(32));
        });
    });
}

#[test]
fn a_barrier_orders_buffers() {
    breaks("memoryBarrierWithScope:]: MTLBarrierScope(2) orders no buffers", || {
        with_pass(|encoder, _, _| encoder.memoryBarrierWithScope(MTLBarrierScope::Textures));
    });
}

#[test]
fn a_resource_is_used_for_something() {
    breaks("useResource:usage:]: neither a read nor a write", || {
        with_pass(|encoder, _, buffer| {
            encoder.useResource_usage(ProtocolObject::from_ref(&**buffer), MTLResourceUsage::empty());
        });
    });
}

#[test]
fn an_ended_encoder_takes_no_bindings() {
    breaks("setComputePipelineState:]: the encoder has ended", || {
        with_pass(|encoder, pipeline, _| {
            let device = device();
            let other = device.newCommandQueue().and_then(|queue| queue.commandBuffer()).expect("a command buffer");
            let ended = compute(&other, MTLDispatchType::Serial);
            ended.endEncoding();
            assert_eq!(encoder.dispatchType(), MTLDispatchType::Serial);
            ended.setComputePipelineState(pipeline);
        });
    });
}

#[test]
fn a_pipeline_outlives_the_unretained_command_buffers_that_use_it() {
    breaks("release of the pipeline of successor: it is in use", || {
        let device = device();
        let queue = device.newCommandQueue().expect("a queue");
        let command_buffer = queue.commandBufferWithUnretainedReferences().expect("a command buffer");
        let pipeline = successor(&device);
        pass(&command_buffer, MTLDispatchType::Serial, |encoder| encoder.setComputePipelineState(&pipeline));
        drop(pipeline);
    });
}

/// Runs a kernel of one threadgroup of 32 over a buffer of 128 bytes; asserts that it breaks a rule whose report contains
/// `expected`, and that the command buffer ends in error for that reason.
fn fails(expected: &str, name: &str, msl: &str) {
    breaks_on_device(expected, || {
        let device = device();
        let (pipeline, buffer) = (pipeline(&device, name, msl), shared(&device, 128));
        let queue = device.newCommandQueue().expect("a queue");
        let command_buffer = run(&queue, |command_buffer| {
            pass(command_buffer, MTLDispatchType::Serial, |encoder| {
                bind(encoder, &pipeline, &[&buffer]);
                dispatch(encoder, 1, 32);
            });
        });
        assert_eq!(command_buffer.status(), MTLCommandBufferStatus::Error);
        let error = command_buffer.error().expect("an error").localizedDescription().to_string();
        assert!(error.contains(expected), "{error}");
    });
}

#[test]
fn threads_meet_at_barriers() {
    let msl = "kernel void divergent(device uint* data [[buffer(0)]], uint t [[thread_index_in_threadgroup]]) {
                   if (t != 7) threadgroup_barrier(mem_flags::mem_none);
                   data[t] = t;
               }";
    fails("dispatch of divergent in compute pass: kernel divergent: threads diverge", "divergent", msl);
}

#[test]
fn kernels_stay_inside_their_buffers() {
    let msl = "kernel void stray(device uint* data [[buffer(0)]], uint t [[thread_index_in_threadgroup]]) {
                   data[t + 1] = t;
               }";
    fails("past the end of buffer index 0", "stray", msl);
}

/// Words of a heap, of which a kernel is told the first 32.
#[test]
fn confined_kernels_stay_inside_what_they_were_told() {
    let told = |name: &str, store: &str| {
        format!(
            "struct Sizes {{ uint size0; uint size1; }};
             kernel void {name}(device uint const* from [[buffer(0)]], device uint* to [[buffer(1)]],
                                constant Sizes& _buffer_sizes [[buffer(2)]], uint t [[thread_index_in_threadgroup]]) {{
                 {store}
             }}"
        )
    };
    let run_told = |name: &str, msl: &str, confined: bool| {
        metal_sim::faults::confine_kernels(confined);
        let device = device();
        let heap = heap(&device, 4096, MTLStorageMode::Shared);
        let (buffer, queue) = (place(&heap, 4096, 0), device.newCommandQueue().expect("a queue"));
        let pipeline = pipeline(&device, name, msl);
        run(&queue, |command_buffer| fill(command_buffer, &buffer, 1));
        run(&queue, |command_buffer| {
            pass(command_buffer, MTLDispatchType::Serial, |encoder| {
                bind(encoder, &pipeline, &[&buffer]);
                set_buffer(encoder, &buffer, 1024, 1);
                set_bytes(encoder, &[128, 0, 0, 0, 128, 0, 0, 0], 2);
                dispatch(encoder, 1, 32);
            });
        });
        let words = bytes(&buffer)[1024..1160].to_vec();
        metal_sim::faults::confine_kernels(false);
        words
    };
    keeps_the_rules(|| {
        let tame = run_told("tame", &told("tame", "to[t] = from[t] + 1;"), true);
        assert_eq!(tame, [[2, 1, 1, 1].repeat(32), vec![1; 8]].concat());
        let stray = run_told("stray", &told("stray", "to[t + 1] = from[t] + 1;"), false);
        assert_eq!(stray[128..132], [2, 1, 1, 1], "a neighbor was overwritten and nobody noticed");
    });
    breaks_on_device("past the end of buffer index 1", || {
        run_told("stray", &told("stray", "to[t + 1] = from[t] + 1;"), true);
    });
    breaks_on_device("past the end of buffer index 0", || {
        run_told("nosy", &told("nosy", "to[t] = from[t + 1];"), true);
    });
}

#[test]
fn msl_that_does_not_compile_is_an_error() {
    keeps_the_rules(|| {
        let source = objc2_foundation::NSString::from_str("kernel void broken(device uint* y [[buffer(0)]]) { oops }");
        let error = device().newLibraryWithSource_options_error(&source, None).expect_err("it does not compile");
        assert_eq!(error.code(), 3);
        assert!(error.localizedDescription().to_string().contains("oops"));
    });
}

#[test]
fn a_library_comes_from_data() {
    keeps_the_rules(|| {
        let device = device();
        let data = DispatchData::from_bytes(b"MTLB#include <metal_stdlib>\nkernel void nothing() {}\n");
        let library = device.newLibraryWithData_error(&data).expect("it compiles");
        assert!(library.newFunctionWithName(&objc2_foundation::NSString::from_str("nothing")).is_some());
        let error = device.newLibraryWithData_error(&DispatchData::from_bytes(b"text")).expect_err("no magic word");
        assert!(format!("{error:?} {error}").contains("the data is not a library"));
    });
}

#[test]
fn an_archive_keeps_the_names_of_kernels() {
    keeps_the_rules(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("archive").display().to_string();
        let url = objc2_foundation::NSURL::fileURLWithPath(&objc2_foundation::NSString::from_str(&path));
        let descriptor = MTLBinaryArchiveDescriptor::new();
        let device = device();
        let archive = device.newBinaryArchiveWithDescriptor_error(&descriptor).expect("an archive");
        let pipeline_descriptor = MTLComputePipelineDescriptor::new();
        let nothing = archive.addComputePipelineFunctionsWithDescriptor_error(&pipeline_descriptor);
        assert!(nothing.is_err(), "no function");
        archive.serializeToURL_error(&url).expect("a file");
        descriptor.setUrl(Some(&url));
        assert!(device.newBinaryArchiveWithDescriptor_error(&descriptor).is_ok());
        std::fs::write(&path, "something else").expect("a file");
        assert!(device.newBinaryArchiveWithDescriptor_error(&descriptor).is_err());
    });
}
