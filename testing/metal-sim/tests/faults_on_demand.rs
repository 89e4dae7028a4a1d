//! Faults on demand. They hold for the whole process, so each test takes its turn.
mod common;

use common::*;
use metal_sim::faults;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::*;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The test's turn; the device works again when it is over.
struct Turn(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

fn turn() -> Turn {
    static TURNS: Mutex<()> = Mutex::new(());
    Turn(TURNS.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Drop for Turn {
    fn drop(&mut self) {
        faults::reset();
    }
}

fn event(device: &Device) -> Retained<ProtocolObject<dyn MTLSharedEvent>> {
    device.newSharedEvent().expect("an event")
}

fn signal(command_buffer: &CommandBuffer, event: &ProtocolObject<dyn MTLSharedEvent>, value: u64) {
    command_buffer.encodeSignalEvent_value(ProtocolObject::from_ref(event), value);
}

#[test]
fn an_allocation_is_refused_once() {
    let _turn = turn();
    keeps_the_rules(|| {
        let device = device();
        faults::refuse_allocation(1);
        let answers: Vec<bool> = (0..3).map(|_| device.newBufferWithLength_options(64, SHARED).is_some()).collect();
        assert_eq!(answers, [true, false, true]);
        faults::refuse_allocation(0);
        let descriptor = MTLHeapDescriptor::new();
        descriptor.setSize(4096);
        assert!(device.newHeapWithDescriptor(&descriptor).is_none());
        assert!(device.newHeapWithDescriptor(&descriptor).is_some());
    });
}

#[test]
fn a_failed_command_buffer_signals_nothing_and_the_next_one_runs() {
    let _turn = turn();
    keeps_the_rules(|| {
        let device = device();
        let (queue, event, buffer) = (device.newCommandQueue().expect("a queue"), event(&device), shared(&device, 16));
        faults::fail_command_buffer(1);
        let run = |value| {
            let command_buffer = run(&queue, |command_buffer| {
                fill(command_buffer, &buffer, value);
                signal(command_buffer, &event, u64::from(value));
            });
            (command_buffer.status(), command_buffer.error().map(|error| error.code()), event.signaledValue())
        };
        assert_eq!(run(1), (MTLCommandBufferStatus::Completed, None, 1));
        assert_eq!(run(2), (MTLCommandBufferStatus::Error, Some(1), 1));
        assert_eq!(bytes(&buffer), [1; 16]);
        assert_eq!(run(3), (MTLCommandBufferStatus::Completed, None, 3));
    });
}

#[test]
fn a_lost_device_fails_what_waits_and_what_comes() {
    let _turn = turn();
    keeps_the_rules(|| {
        let device = device();
        let (queue, event) = (device.newCommandQueue().expect("a queue"), event(&device));
        let waiting = queue.commandBuffer().expect("a command buffer");
        waiting.encodeWaitForEvent_value(ProtocolObject::from_ref(&*event), 1);
        waiting.commit();
        let next = queue.commandBuffer().expect("a command buffer");
        signal(&next, &event, 1);
        next.commit();
        faults::lose_device();
        for command_buffer in [waiting, next] {
            command_buffer.waitUntilCompleted();
            let error = command_buffer.error().expect("an error");
            assert_eq!(MTLCommandBufferError(error.code() as usize), MTLCommandBufferError::DeviceRemoved);
        }
        assert_eq!(event.signaledValue(), 0);
        assert!(device.newBufferWithLength_options(16, SHARED).is_none());
    });
}

#[test]
fn an_event_is_never_signaled() {
    let _turn = turn();
    keeps_the_rules(|| {
        let device = device();
        let (queue, event) = (device.newCommandQueue().expect("a queue"), event(&device));
        faults::withhold_signals(true);
        let command_buffer = run(&queue, |command_buffer| signal(command_buffer, &event, 1));
        assert_eq!(command_buffer.status(), MTLCommandBufferStatus::Completed);
        assert!(!event.waitUntilSignaledValue_timeoutMS(1, 20));
        event.setSignaledValue(1);
        assert!(event.waitUntilSignaledValue_timeoutMS(1, 20));
    });
}

#[test]
fn a_slow_device_has_several_command_buffers_in_flight() {
    let _turn = turn();
    keeps_the_rules(|| {
        let device = device();
        let queue = device.newCommandQueue().expect("a queue");
        faults::slow_down(Duration::from_millis(40));
        let began = Instant::now();
        let flights: Vec<_> = (0..3).filter_map(|_| queue.commandBuffer()).inspect(|flight| flight.commit()).collect();
        let unfinished = flights.iter().filter(|flight| flight.status() < MTLCommandBufferStatus::Completed).count();
        // All three, unless this thread was held up for longer than the device takes.
        assert!(unfinished == 3 || began.elapsed() > Duration::from_millis(40), "{unfinished} in flight");
        flights[2].waitUntilCompleted();
        assert!(flights[2].GPUStartTime() >= flights[1].GPUEndTime());
        assert!(flights[1].GPUEndTime() - flights[1].GPUStartTime() >= 0.04);
    });
}

#[test]
fn memory_is_unified_or_not_and_as_large_as_asked() {
    let _turn = turn();
    keeps_the_rules(|| {
        let device = device();
        assert!(device.hasUnifiedMemory() && device.supportsFamily(MTLGPUFamily::Apple7));
        faults::set_unified_memory(false);
        faults::set_working_set(1 << 20);
        assert!(!device.hasUnifiedMemory() && !device.supportsFamily(MTLGPUFamily::Apple7));
        assert!(device.supportsFamily(MTLGPUFamily::Mac2));
        assert_eq!(device.recommendedMaxWorkingSetSize(), 1 << 20);
    });
    faults::set_unified_memory(false);
    breaks("newHeapWithDescriptor:]: a heap of this device cannot have MTLStorageMode(0)", || {
        heap(&device(), 4096, MTLStorageMode::Shared);
    });
}
