//! Rules of command buffers, encoders, fences and events, each broken on purpose.
mod common;

use block2::RcBlock;
use common::*;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::*;
use std::ptr::NonNull;

fn command_buffer() -> CommandBuffer {
    device().newCommandQueue().and_then(|queue| queue.commandBuffer()).expect("a command buffer")
}

fn open_encoder(command_buffer: &CommandBuffer) -> Retained<ProtocolObject<dyn MTLBlitCommandEncoder>> {
    command_buffer.blitCommandEncoder().expect("an encoder")
}

/// Forgets an object that a broken rule leaves in a state in which its release breaks another.
fn abandon<T>(object: T) {
    std::mem::forget(object);
}

#[test]
fn one_encoder_at_a_time() {
    breaks("computeCommandEncoder]: an encoder is still open", || {
        let command_buffer = command_buffer();
        abandon(open_encoder(&command_buffer));
        command_buffer.computeCommandEncoder();
    });
}

#[test]
fn no_commit_with_an_open_encoder() {
    breaks("commit]: an encoder is still open", || {
        let command_buffer = command_buffer();
        abandon(open_encoder(&command_buffer));
        command_buffer.commit();
    });
}

#[test]
fn no_event_inside_an_encoder() {
    breaks("encodeSignalEvent:value:]: an encoder is still open", || {
        let command_buffer = command_buffer();
        abandon(open_encoder(&command_buffer));
        let event = device().newSharedEvent().expect("an event");
        command_buffer.encodeSignalEvent_value(ProtocolObject::from_ref(&*event), 1);
    });
}

#[test]
fn a_command_buffer_is_committed_once() {
    breaks("commit]: the command buffer was committed", || {
        let command_buffer = command_buffer();
        command_buffer.commit();
        command_buffer.commit();
    });
}

#[test]
fn a_committed_command_buffer_takes_no_encoder() {
    breaks("blitCommandEncoder]: the command buffer was committed", || {
        let command_buffer = command_buffer();
        command_buffer.commit();
        command_buffer.waitUntilCompleted();
        command_buffer.blitCommandEncoder();
    });
}

#[test]
fn handlers_come_before_commit() {
    breaks("addCompletedHandler:]: the command buffer was committed", || {
        let command_buffer = command_buffer();
        command_buffer.commit();
        let handler = RcBlock::new(|_: NonNull<ProtocolObject<dyn MTLCommandBuffer>>| {});
        // SAFETY: the handler may be called on any thread.
        unsafe { command_buffer.addCompletedHandler(RcBlock::as_ptr(&handler)) };
    });
}

#[test]
fn waits_come_after_commit() {
    breaks("waitUntilCompleted]: it was not committed", || command_buffer().waitUntilCompleted());
}

#[test]
fn an_encoder_ends_before_its_release() {
    breaks("release of an encoder: endEncoding was not called", || {
        drop(command_buffer().blitCommandEncoder());
    });
}

#[test]
fn an_ended_encoder_takes_no_commands() {
    breaks("fillBuffer:range:value:]: the encoder has ended", || {
        let command_buffer = command_buffer();
        let encoder = open_encoder(&command_buffer);
        encoder.endEncoding();
        encoder.fillBuffer_range_value(&shared(&device(), 16), (0..16).into(), 0);
    });
}

#[test]
fn an_encoder_ends_once() {
    breaks("endEncoding]: the encoder has ended", || {
        let command_buffer = command_buffer();
        let encoder = open_encoder(&command_buffer);
        encoder.endEncoding();
        encoder.endEncoding();
    });
}

#[test]
fn no_more_than_64_uncompleted_command_buffers() {
    let queue = device().newCommandQueue().expect("a queue");
    let mut held = Vec::new();
    breaks("commandBuffer]: 65 uncompleted command buffers on a queue made for 64", || {
        held.extend((0..65).filter_map(|_| queue.commandBuffer()));
    });
    // Completed and released ones count no more.
    drop(held);
    for _ in 0..100 {
        keeps_the_rules_so_far(|| {
            run(&queue, |_| {});
            drop(queue.commandBuffer());
        });
    }
}

#[test]
fn a_queue_may_be_made_for_fewer() {
    breaks("3 uncompleted command buffers on a queue made for 2", || {
        let queue = device().newCommandQueueWithMaxCommandBufferCount(2).expect("a queue");
        let _held: Vec<_> = (0..3).filter_map(|_| queue.commandBuffer()).collect();
    });
}

#[test]
fn an_encoder_waits_for_a_fence_before_it_updates_it() {
    breaks("waitForFence:]: this encoder updated the fence before", || {
        let command_buffer = command_buffer();
        let encoder = open_encoder(&command_buffer);
        let fence = device().newFence().expect("a fence");
        encoder.updateFence(&fence);
        encoder.end_after(|encoder| encoder.waitForFence(&fence));
    });
}

/// Ends an encoder whatever becomes of a call on it.
trait EndAfter {
    fn end_after(&self, call: impl FnOnce(&Self));
}

impl EndAfter for ProtocolObject<dyn MTLBlitCommandEncoder> {
    fn end_after(&self, call: impl FnOnce(&Self)) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call(self)));
        self.endEncoding();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_fence_belongs_to_one_queue() {
    breaks("updateFence:]: a fence orders passes of one queue", || {
        let (first, second) = (command_buffer(), command_buffer());
        let fence = device().newFence().expect("a fence");
        for command_buffer in [&first, &second] {
            let encoder = open_encoder(command_buffer);
            encoder.end_after(|encoder| encoder.updateFence(&fence));
        }
    });
}

#[test]
fn an_event_only_rises() {
    breaks("setSignaledValue:]: 1 takes an event back from 2", || {
        let event = device().newSharedEvent().expect("an event");
        event.setSignaledValue(2);
        event.setSignaledValue(1);
    });
    breaks_on_device("encodeSignalEvent:value:]: 1 takes an event back from 2", || {
        let (command_buffer, event) = (command_buffer(), device().newSharedEvent().expect("an event"));
        event.setSignaledValue(2);
        command_buffer.encodeSignalEvent_value(ProtocolObject::from_ref(&*event), 1);
        command_buffer.commit();
        command_buffer.waitUntilCompleted();
        assert_eq!(command_buffer.status(), MTLCommandBufferStatus::Error);
    });
}

#[test]
fn a_queue_that_waits_for_ever_shows_in_drain() {
    objc2::rc::autoreleasepool(|_| {
        let (command_buffer, event) = (command_buffer(), device().newSharedEvent().expect("an event"));
        command_buffer.encodeWaitForEvent_value(ProtocolObject::from_ref(&*event), 1);
        command_buffer.commit();
        breaks("drain: 1 command buffers or handlers do not end", || {
            metal_sim::drain(std::time::Duration::from_millis(50));
        });
        event.setSignaledValue(1);
        command_buffer.waitUntilCompleted();
    });
}
