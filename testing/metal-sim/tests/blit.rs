//! Devices, heaps, buffers, blits and events.
mod common;

use block2::RcBlock;
use common::*;
use objc2::runtime::ProtocolObject;
use objc2_metal::*;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_placed_buffer_is_filled_and_copied_to_the_host() {
    keeps_the_rules(|| {
        let device = device();
        assert_eq!(device.name().to_string(), "metal-sim");
        let heap = heap(&device, 1 << 16, MTLStorageMode::Private);
        let (placed, back) = (place(&heap, 1000, 512), shared(&device, 1000));
        let queue = device.newCommandQueue().expect("a queue");
        let event = device.newSharedEvent().expect("an event");
        let calls = Arc::new(AtomicUsize::new(0));
        let command_buffer = queue.commandBufferWithUnretainedReferences().expect("a command buffer");
        let fence = device.newFence().expect("a fence");
        let ordered = |record: &dyn Fn(&ProtocolObject<dyn MTLBlitCommandEncoder>)| {
            let encoder = command_buffer.blitCommandEncoder().expect("an encoder");
            encoder.waitForFence(&fence);
            record(&encoder);
            encoder.updateFence(&fence);
            encoder.endEncoding();
        };
        ordered(&|encoder| encoder.fillBuffer_range_value(&placed, (0..1000).into(), 1));
        ordered(&|encoder| encoder.fillBuffer_range_value(&placed, (100..300).into(), 2));
        // SAFETY: the ranges are within the buffers.
        ordered(&|encoder| unsafe {
            encoder.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(&placed, 0, &back, 0, 1000);
        });
        command_buffer.encodeSignalEvent_value(ProtocolObject::from_ref(&*event), 7);
        let counter = calls.clone();
        let handler = RcBlock::new(move |_: NonNull<ProtocolObject<dyn MTLCommandBuffer>>| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        // SAFETY: the handler may be called on any thread.
        unsafe { command_buffer.addCompletedHandler(RcBlock::as_ptr(&handler)) };
        command_buffer.commit();
        assert!(event.waitUntilSignaledValue_timeoutMS(7, 10_000));
        command_buffer.waitUntilCompleted();
        assert_eq!(command_buffer.status(), MTLCommandBufferStatus::Completed);
        assert!(command_buffer.GPUEndTime() >= command_buffer.GPUStartTime());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        let expected: Vec<u8> = (0..1000).map(|at| if (100..300).contains(&at) { 2 } else { 1 }).collect();
        assert_eq!(bytes(&back), expected);
        assert_eq!((heap.usedSize(), placed.heapOffset(), placed.length()), (1024, 512, 1000));
        assert!(placed.heap() == Some(heap) && queue.device() == device && command_buffer.commandQueue() == queue);
    });
}

#[test]
fn the_host_and_a_listener_follow_an_event() {
    keeps_the_rules(|| {
        let device = device();
        let queue = device.newCommandQueue().expect("a queue");
        let event = device.newSharedEvent().expect("an event");
        let (send, notified) = std::sync::mpsc::channel();
        let block = RcBlock::new(move |_: NonNull<ProtocolObject<dyn MTLSharedEvent>>, value| {
            send.send(value).expect("the test waits");
        });
        let listener = MTLSharedEventListener::new();
        // SAFETY: the block may be called on any thread.
        unsafe { event.notifyListener_atValue_block(&listener, 3, RcBlock::as_ptr(&block)) };
        let command_buffer = queue.commandBuffer().expect("a command buffer");
        command_buffer.encodeWaitForEvent_value(ProtocolObject::from_ref(&*event), 2);
        command_buffer.encodeSignalEvent_value(ProtocolObject::from_ref(&*event), 4);
        command_buffer.commit();
        assert!(!event.waitUntilSignaledValue_timeoutMS(4, 5));
        event.setSignaledValue(2);
        assert!(event.waitUntilSignaledValue_timeoutMS(4, 10_000));
        assert_eq!((notified.recv(), event.signaledValue()), (Ok(4), 4));
    });
}

#[test]
fn memory_without_a_copy_is_the_hosts_and_is_deallocated_by_it() {
    keeps_the_rules(|| {
        let device = device();
        let layout = std::alloc::Layout::from_size_align(8192, 4096).expect("a layout");
        // SAFETY: the size is not zero.
        let memory = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).expect("memory");
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = calls.clone();
        let deallocator = RcBlock::new(move |start: NonNull<std::ffi::c_void>, len| {
            counter.fetch_add(len, Ordering::SeqCst);
            // SAFETY: allocated above, and deallocated once.
            unsafe { std::alloc::dealloc(start.as_ptr().cast(), layout) };
        });
        // SAFETY: the memory lives until the deallocator is called.
        let buffer = unsafe {
            device.newBufferWithBytesNoCopy_length_options_deallocator(memory.cast(), 8192, SHARED, Some(&deallocator))
        };
        let buffer = buffer.expect("a buffer");
        let queue = device.newCommandQueue().expect("a queue");
        run(&queue, |command_buffer| fill(command_buffer, &buffer, 7));
        // SAFETY: nothing of the device's writes the memory now.
        assert_eq!(unsafe { memory.add(8191).read() }, 7);
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        metal_sim::drain(std::time::Duration::from_secs(10));
        drop((buffer, deallocator));
        assert_eq!(calls.load(Ordering::SeqCst), 8192);
    });
}
