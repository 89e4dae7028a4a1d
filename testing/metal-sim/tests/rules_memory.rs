//! Rules of memory, each broken on purpose: storage, placement, ranges, lifetimes.
mod common;

use common::*;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSRange;
use objc2_metal::*;
use std::ptr::NonNull;

fn automatic_heap(device: &Device) -> Heap {
    let descriptor = MTLHeapDescriptor::new();
    descriptor.setSize(4096);
    device.newHeapWithDescriptor(&descriptor).expect("memory")
}

/// Records one blit command, and ends the encoder whatever becomes of it.
fn blit(record: impl FnOnce(&ProtocolObject<dyn MTLBlitCommandEncoder>)) {
    let command_buffer = device().newCommandQueue().and_then(|queue| queue.commandBuffer()).expect("a command buffer");
    let encoder = command_buffer.blitCommandEncoder().expect("an encoder");
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| record(&encoder)));
    encoder.endEncoding();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn copy_range(from: &Buffer, start: usize, to: &Buffer, at: usize, len: usize) {
    // SAFETY: every misuse of the ranges is the simulator's to report.
    blit(|encoder| unsafe {
        encoder.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(from, start, to, at, len);
    });
}

#[test]
fn new_memory_is_poisoned() {
    assert_eq!(bytes(&shared(&device(), 100)), [0xA5; 100]);
    let heap = heap(&device(), 4096, MTLStorageMode::Shared);
    let placed = place(&heap, 100, 256);
    // SAFETY: the buffer has that many bytes, and nobody else uses it.
    unsafe { placed.contents().as_ptr().cast::<u8>().write_bytes(0, 100) };
    drop(placed);
    assert_eq!(bytes(&place(&heap, 100, 256)), [0xA5; 100], "and poisoned again for the next resource");
}

#[test]
fn the_host_cannot_reach_private_memory() {
    breaks("contents]: the host cannot reach", || {
        device().newBufferWithLength_options(16, PRIVATE).expect("memory").contents();
    });
}

#[test]
fn only_managed_memory_is_flushed() {
    breaks("didModifyRange:]", || shared(&device(), 16).didModifyRange(NSRange::new(0, 16)));
}

#[test]
fn no_managed_memory() {
    breaks("newBufferWithLength:options:]: MTLStorageMode(1) is not simulated", || {
        device().newBufferWithLength_options(16, MTLResourceOptions::StorageModeManaged);
    });
}

#[test]
fn a_buffer_has_a_length() {
    breaks("newBufferWithLength:options:]: length 0", || drop(device().newBufferWithLength_options(0, SHARED)));
}

#[test]
fn a_heap_has_a_size_and_a_possible_storage_mode() {
    breaks("newHeapWithDescriptor:]: the size is 0", || {
        device().newHeapWithDescriptor(&MTLHeapDescriptor::new());
    });
    breaks("newHeapWithDescriptor:]: a heap of this device cannot have MTLStorageMode(1)", || {
        heap(&device(), 4096, MTLStorageMode::Managed);
    });
}

#[test]
fn a_resource_has_its_heaps_modes() {
    let heap = heap(&device(), 4096, MTLStorageMode::Private);
    // SAFETY: the offset is good.
    let place = |options| unsafe { heap.newBufferWithLength_options_offset(16, options, 0) };
    breaks("MTLStorageMode(0) in a heap with MTLStorageMode(2)", || drop(place(SHARED)));
    breaks("MTLHazardTrackingMode(2) in a heap with MTLHazardTrackingMode(1)", || {
        drop(place(PRIVATE | MTLResourceOptions::HazardTrackingModeTracked));
    });
}

#[test]
fn a_placement_is_aligned_and_inside() {
    let heap = heap(&device(), 4096, MTLStorageMode::Private);
    breaks("newBufferWithLength:options:offset:]: offset 128 is not a multiple of 256", || drop(place(&heap, 16, 128)));
    breaks("512 bytes at 3840 of a heap of 4096", || drop(place(&heap, 512, 3840)));
}

#[test]
fn live_resources_do_not_overlap() {
    let heap = heap(&device(), 4096, MTLStorageMode::Private);
    let first = place(&heap, 300, 256);
    breaks("256 bytes at 512 overlap a live resource at 256..768", || drop(place(&heap, 16, 512)));
    // SAFETY: what shares its memory is the simulator's to check.
    unsafe { first.makeAliasable() };
    keeps_the_rules_so_far(|| drop(place(&heap, 16, 512)));
    drop(first);
    keeps_the_rules_so_far(|| drop(place(&heap, 4096, 0)));
}

#[test]
fn each_kind_of_heap_has_its_own_way_of_placing() {
    breaks("newBufferWithLength:options:offset:]: the heap places its resources itself", || {
        drop(place(&automatic_heap(&device()), 16, 0));
    });
    breaks("newBufferWithLength:options:]: a placement heap needs the offset", || {
        heap(&device(), 4096, MTLStorageMode::Private).newBufferWithLength_options(16, PRIVATE);
    });
}

#[test]
fn an_automatic_heap_fills_up() {
    keeps_the_rules(|| {
        let heap = automatic_heap(&device());
        let held: Vec<_> = (0..16).map_while(|_| heap.newBufferWithLength_options(256, PRIVATE)).collect();
        assert_eq!((held.len(), heap.maxAvailableSizeWithAlignment(256)), (16, 0));
        assert!(heap.newBufferWithLength_options(16, PRIVATE).is_none());
        drop(held);
        assert_eq!((heap.usedSize(), heap.maxAvailableSizeWithAlignment(256)), (0, 4096));
    });
}

#[test]
fn only_resources_of_heaps_alias() {
    breaks("makeAliasable]: the buffer is not on a heap", || {
        // SAFETY: the simulator refuses it.
        unsafe { shared(&device(), 16).makeAliasable() };
    });
}

#[test]
fn blits_stay_inside_and_are_words() {
    let (small, large) = (shared(&device(), 16), shared(&device(), 64));
    breaks("32 bytes at 0 of a buffer of 16 bytes", || copy_range(&large, 0, &small, 0, 32));
    breaks("offsets and sizes must be multiples of 4: [2, 0, 4]", || copy_range(&large, 2, &small, 0, 4));
    breaks("the size is 0", || copy_range(&large, 0, &small, 0, 0));
    breaks("source and destination overlap", || copy_range(&large, 0, &large, 8, 16));
    breaks("20 bytes at 0 of a buffer of 16 bytes", || {
        blit(|encoder| encoder.fillBuffer_range_value(&small, NSRange::new(0, 20), 0));
    });
    breaks("the range is empty", || {
        blit(|encoder| encoder.fillBuffer_range_value(&small, NSRange::new(0, 0), 0));
    });
}

#[test]
fn memory_without_a_copy_is_whole_pages() {
    breaks("newBufferWithBytesNoCopy:length:options:deallocator:]: 100 bytes at", || {
        let bytes = [0u8; 100];
        // SAFETY: the simulator refuses the memory.
        unsafe {
            device().newBufferWithBytesNoCopy_length_options_deallocator(
                NonNull::from(&bytes).cast(),
                100,
                SHARED,
                None,
            )
        };
    });
}

#[test]
fn memory_without_a_copy_is_the_hosts() {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    breaks("private storage is not the host's", || {
        let page = Page([0; 4096]);
        let start = NonNull::from(&page.0).cast();
        // SAFETY: the simulator refuses the storage mode.
        unsafe { device().newBufferWithBytesNoCopy_length_options_deallocator(start, 4096, PRIVATE, None) };
    });
}

/// An uncommitted command buffer that retains nothing and fills `buffer`.
fn unretained_fill(queue: &Queue, buffer: &Buffer) -> CommandBuffer {
    let command_buffer = queue.commandBufferWithUnretainedReferences().expect("a command buffer");
    fill(&command_buffer, buffer, 0);
    command_buffer
}

#[test]
fn memory_outlives_the_unretained_command_buffers_that_use_it() {
    let queue = device().newCommandQueue().expect("a queue");
    breaks("release of a buffer of 16 bytes: it is in use by commands of uncompleted command buffers", || {
        let buffer = shared(&device(), 16);
        let _uncommitted = unretained_fill(&queue, &buffer);
        drop(buffer);
    });
    let event = device().newSharedEvent().expect("an event");
    breaks("release of a buffer of 32 bytes: it is in use", || {
        let buffer = shared(&device(), 32);
        let command_buffer = queue.commandBufferWithUnretainedReferences().expect("a command buffer");
        command_buffer.encodeWaitForEvent_value(ProtocolObject::from_ref(&*event), 1);
        fill(&command_buffer, &buffer, 0);
        command_buffer.commit();
        drop(buffer);
    });
    event.setSignaledValue(1);
    metal_sim::drain(std::time::Duration::from_secs(10));
}

#[test]
fn events_and_fences_outlive_the_unretained_command_buffers_that_use_them() {
    let queue = device().newCommandQueue().expect("a queue");
    breaks("release of an event: it is in use", || {
        let command_buffer = queue.commandBufferWithUnretainedReferences().expect("a command buffer");
        let event = device().newSharedEvent().expect("an event");
        command_buffer.encodeSignalEvent_value(ProtocolObject::from_ref(&*event), 1);
        drop(event);
    });
    breaks("release of a fence: it is in use", || {
        let command_buffer = queue.commandBufferWithUnretainedReferences().expect("a command buffer");
        let fence = device().newFence().expect("a fence");
        let encoder = command_buffer.blitCommandEncoder().expect("an encoder");
        encoder.updateFence(&fence);
        encoder.endEncoding();
        drop(fence);
    });
}

#[test]
fn a_retained_command_buffer_keeps_memory_alive_and_its_place_taken() {
    let device = device();
    let (heap, event) = (heap(&device, 4096, MTLStorageMode::Private), device.newSharedEvent().expect("an event"));
    let queue = device.newCommandQueue().expect("a queue");
    objc2::rc::autoreleasepool(|_| {
        let command_buffer = queue.commandBuffer().expect("a command buffer");
        command_buffer.encodeWaitForEvent_value(ProtocolObject::from_ref(&*event), 1);
        fill(&command_buffer, &place(&heap, 256, 0), 0);
        command_buffer.commit();
        breaks("256 bytes at 0 overlap a live resource at 0..256", || drop(place(&heap, 256, 0)));
        event.setSignaledValue(1);
        command_buffer.waitUntilCompleted();
    });
    metal_sim::drain(std::time::Duration::from_secs(10));
    keeps_the_rules_so_far(|| drop(place(&heap, 256, 0)));
}

#[test]
fn only_what_was_added_to_a_residency_set_can_be_removed() {
    let device = device();
    let set = device.newResidencySetWithDescriptor_error(&MTLResidencySetDescriptor::new()).expect("a set");
    let buffer = shared(&device, 64);
    let allocation: Retained<ProtocolObject<dyn MTLAllocation>> = ProtocolObject::from_retained(buffer);
    keeps_the_rules_so_far(|| {
        set.addAllocation(&allocation);
        assert_eq!(set.allocatedSize(), 0, "not before the commit");
        set.commit();
        assert_eq!((set.allocatedSize(), set.allocationCount(), set.containsAllocation(&allocation)), (64, 1, true));
        set.removeAllocation(&allocation);
        set.commit();
    });
    breaks("removeAllocation:]: the allocation is not in the set", || set.removeAllocation(&allocation));
    breaks("removeResidencySet:]: the set was not added", || {
        device.newCommandQueue().expect("a queue").removeResidencySet(&set);
    });
    let queue = device.newCommandQueue().expect("a queue");
    breaks("addResidencySet:]: 33 residency sets; a queue takes up to 32", || {
        (0..33).for_each(|_| queue.addResidencySet(&set));
    });
}
