//! Reads and writes that nothing orders, each on purpose, beside the same with what orders them.
mod common;

use common::*;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::*;
use std::ptr::NonNull;
use std::time::Duration;

const UNORDERED: &str = "which no barrier, fence or event orders after";

/// Bench of three untracked buffers of 128 bytes, and what runs kernels over them.
struct Bench {
    device: Device,
    queue: Queue,
    successor: Pipeline,
    heap: Heap,
    buffers: [Buffer; 3],
}

impl Bench {
    fn new() -> Self {
        let device = device();
        let heap = heap(&device, 4096, MTLStorageMode::Shared);
        Self {
            queue: device.newCommandQueue().expect("a queue"),
            successor: successor(&device),
            buffers: [0, 1, 2].map(|place_number| place(&heap, 128, place_number * 256)),
            heap,
            device,
        }
    }

    fn fence(&self) -> Retained<ProtocolObject<dyn MTLFence>> {
        self.device.newFence().expect("a fence")
    }

    /// Dispatches `to = from + 1`.
    fn step(&self, encoder: &ComputeEncoder, from: usize, to: usize) {
        bind(encoder, &self.successor, &[&self.buffers[from], &self.buffers[to]]);
        dispatch(encoder, 1, 32);
    }

    /// Zeroes the first buffer, and lets the host see it done.
    fn begin(&self) {
        run(&self.queue, |command_buffer| fill(command_buffer, &self.buffers[0], 0));
    }

    fn word(&self, buffer: usize) -> u32 {
        u32::from_le_bytes(bytes(&self.buffers[buffer])[..4].try_into().expect("four bytes"))
    }
}

#[test]
fn dispatches_of_a_concurrent_pass_need_a_barrier() {
    let chain = |with_barrier: bool| {
        move || {
            let bench = Bench::new();
            bench.begin();
            let command_buffer = run(&bench.queue, |command_buffer| {
                pass(command_buffer, MTLDispatchType::Concurrent, |encoder| {
                    bench.step(encoder, 0, 1);
                    if with_barrier {
                        encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
                    }
                    bench.step(encoder, 1, 2);
                });
            });
            if with_barrier {
                assert_eq!(command_buffer.status(), MTLCommandBufferStatus::Completed);
                assert_eq!(bench.word(2), 2);
            }
        }
    };
    breaks_on_device(UNORDERED, chain(false));
    keeps_the_rules(chain(true));
}

#[test]
fn a_conflict_names_both_commands_and_the_bytes() {
    breaks_on_device(
        "dispatch of successor in compute pass: dispatch of successor in compute pass reads buffer \"middle\" at 256..384",
        || {
            let bench = Bench::new();
            bench.begin();
            bench.buffers[1].setLabel(Some(&objc2_foundation::NSString::from_str("middle")));
            run(&bench.queue, |command_buffer| {
                pass(command_buffer, MTLDispatchType::Concurrent, |encoder| {
                    bench.step(encoder, 0, 1);
                    bench.step(encoder, 1, 2);
                });
            });
        },
    );
}

#[test]
fn a_write_must_come_after_reads() {
    breaks_on_device("writes buffer at 0..128", || {
        let bench = Bench::new();
        bench.begin();
        run(&bench.queue, |command_buffer| {
            pass(command_buffer, MTLDispatchType::Concurrent, |encoder| {
                bench.step(encoder, 0, 1);
                bench.step(encoder, 2, 0);
            });
        });
    });
}

#[test]
fn reads_side_by_side_need_no_barrier() {
    keeps_the_rules(|| {
        let bench = Bench::new();
        bench.begin();
        run(&bench.queue, |command_buffer| {
            pass(command_buffer, MTLDispatchType::Concurrent, |encoder| {
                bench.step(encoder, 0, 1);
                bench.step(encoder, 0, 2);
            });
        });
        assert_eq!((bench.word(1), bench.word(2)), (1, 1));
    });
}

#[test]
fn a_barrier_on_resources_orders_only_those() {
    let chain = |barrier_on: usize| {
        move || {
            let bench = Bench::new();
            bench.begin();
            run(&bench.queue, |command_buffer| {
                pass(command_buffer, MTLDispatchType::Concurrent, |encoder| {
                    bench.step(encoder, 0, 1);
                    let resource: &ProtocolObject<dyn MTLResource> =
                        ProtocolObject::from_ref(&*bench.buffers[barrier_on]);
                    let mut list = [NonNull::from(resource)];
                    // SAFETY: the list has one resource.
                    unsafe { encoder.memoryBarrierWithResources_count(NonNull::from(&mut list[0]), 1) };
                    bench.step(encoder, 1, 2);
                });
            });
        }
    };
    breaks_on_device(UNORDERED, chain(0));
    keeps_the_rules(chain(1));
}

#[test]
fn dispatches_of_a_serial_pass_are_ordered() {
    keeps_the_rules(|| {
        let bench = Bench::new();
        bench.begin();
        run(&bench.queue, |command_buffer| {
            pass(command_buffer, MTLDispatchType::Serial, |encoder| {
                bench.step(encoder, 0, 1);
                bench.step(encoder, 1, 2);
            });
        });
        assert_eq!(bench.word(2), 2);
    });
}

/// Runs two passes over the same untracked memory, in one command buffer or in two, with a fence or without.
fn two_passes(command_buffers: usize, with_fence: bool) {
    let bench = Bench::new();
    bench.begin();
    let fence = bench.fence();
    let record = |command_buffer: &CommandBuffer, from: usize| {
        pass(command_buffer, MTLDispatchType::Concurrent, |encoder| {
            if with_fence {
                encoder.waitForFence(&fence);
            }
            bench.step(encoder, from, from + 1);
            if with_fence {
                encoder.updateFence(&fence);
            }
        });
    };
    let first = bench.queue.commandBuffer().expect("a command buffer");
    record(&first, 0);
    if command_buffers == 2 {
        first.commit();
        run(&bench.queue, |second| record(second, 1));
    } else {
        record(&first, 1);
        first.commit();
        first.waitUntilCompleted();
    }
    if with_fence {
        assert_eq!(bench.word(2), 2);
    }
}

#[test]
fn passes_over_untracked_memory_need_a_fence() {
    breaks_on_device(UNORDERED, || two_passes(1, false));
    keeps_the_rules(|| two_passes(1, true));
}

#[test]
fn so_do_command_buffers_of_one_queue() {
    breaks_on_device(UNORDERED, || two_passes(2, false));
    keeps_the_rules(|| two_passes(2, true));
}

#[test]
fn a_fence_passes_on_what_its_pass_waited_for() {
    keeps_the_rules(|| {
        let bench = Bench::new();
        bench.begin();
        let fences = [bench.fence(), bench.fence()];
        run(&bench.queue, |command_buffer| {
            pass(command_buffer, MTLDispatchType::Concurrent, |encoder| {
                bench.step(encoder, 0, 1);
                encoder.updateFence(&fences[0]);
            });
            pass(command_buffer, MTLDispatchType::Concurrent, |encoder| {
                encoder.waitForFence(&fences[0]);
                encoder.updateFence(&fences[1]);
            });
            pass(command_buffer, MTLDispatchType::Concurrent, |encoder| {
                encoder.waitForFence(&fences[1]);
                bench.step(encoder, 1, 2);
            });
        });
        assert_eq!(bench.word(2), 2);
    });
}

#[test]
fn a_queue_barrier_orders_all_earlier_passes() {
    keeps_the_rules(|| {
        let bench = Bench::new();
        bench.begin();
        run(&bench.queue, |command_buffer| {
            pass(command_buffer, MTLDispatchType::Concurrent, |encoder| bench.step(encoder, 0, 1));
            pass(command_buffer, MTLDispatchType::Concurrent, |encoder| {
                encoder.barrierAfterQueueStages_beforeStages(MTLStages::Dispatch, MTLStages::Dispatch);
                bench.step(encoder, 1, 2);
            });
        });
    });
}

/// A queue writes what another reads, with an event between or without.
fn two_queues(with_event: bool) {
    let bench = Bench::new();
    bench.begin();
    let (second, event) = (bench.device.newCommandQueue().expect("a queue"), bench.device.newSharedEvent());
    let event = event.expect("an event");
    let event: &ProtocolObject<dyn MTLEvent> = ProtocolObject::from_ref(&*event);
    let command_buffer = bench.queue.commandBuffer().expect("a command buffer");
    pass(&command_buffer, MTLDispatchType::Serial, |encoder| bench.step(encoder, 0, 1));
    command_buffer.encodeSignalEvent_value(event, 1);
    let reader = second.commandBuffer().expect("a command buffer");
    if with_event {
        reader.encodeWaitForEvent_value(event, 1);
    }
    pass(&reader, MTLDispatchType::Serial, |encoder| bench.step(encoder, 1, 2));
    // The reader first: the event must hold it back.
    reader.commit();
    if with_event {
        std::thread::sleep(Duration::from_millis(5));
    }
    command_buffer.commit();
    reader.waitUntilCompleted();
    command_buffer.waitUntilCompleted();
    if with_event {
        assert_eq!(bench.word(2), 2);
    }
}

#[test]
fn queues_need_an_event() {
    breaks_on_device(UNORDERED, || two_queues(false));
    keeps_the_rules(|| two_queues(true));
}

#[test]
fn what_the_host_has_seen_complete_comes_before_what_it_commits() {
    keeps_the_rules(|| {
        let bench = Bench::new();
        bench.begin();
        let second = bench.device.newCommandQueue().expect("a queue");
        run(&bench.queue, |command_buffer| {
            pass(command_buffer, MTLDispatchType::Serial, |encoder| bench.step(encoder, 0, 1));
        });
        run(&second, |command_buffer| {
            pass(command_buffer, MTLDispatchType::Serial, |encoder| bench.step(encoder, 1, 2));
        });
        assert_eq!(bench.word(2), 2);
    });
}

#[test]
fn what_the_host_has_not_seen_complete_does_not() {
    breaks_on_device(UNORDERED, || {
        let bench = Bench::new();
        bench.begin();
        let second = bench.device.newCommandQueue().expect("a queue");
        let first = bench.queue.commandBuffer().expect("a command buffer");
        pass(&first, MTLDispatchType::Serial, |encoder| bench.step(encoder, 0, 1));
        first.commit();
        // Long enough for the first to complete; but nobody asked.
        std::thread::sleep(Duration::from_millis(50));
        let next = second.commandBuffer().expect("a command buffer");
        pass(&next, MTLDispatchType::Serial, |encoder| bench.step(encoder, 1, 2));
        next.commit();
    });
}

#[test]
fn the_system_orders_tracked_memory_within_a_queue_only() {
    keeps_the_rules(|| {
        let device = device();
        let (queue, successor) = (device.newCommandQueue().expect("a queue"), successor(&device));
        let buffers = [shared(&device, 128), shared(&device, 128)];
        run(&queue, |command_buffer| {
            fill(command_buffer, &buffers[0], 0);
            pass(command_buffer, MTLDispatchType::Serial, |encoder| {
                bind(encoder, &successor, &[&buffers[0], &buffers[1]]);
                dispatch(encoder, 1, 32);
            });
        });
        assert_eq!(bytes(&buffers[1])[..4], [1, 0, 0, 0]);
    });
    breaks_on_device(UNORDERED, || {
        let device = device();
        let buffer = shared(&device, 128);
        for _ in 0..2 {
            let queue = device.newCommandQueue().expect("a queue");
            let command_buffer = queue.commandBuffer().expect("a command buffer");
            fill(&command_buffer, &buffer, 0);
            command_buffer.commit();
        }
    });
}

#[test]
fn blits_of_one_pass_are_ordered_over_tracked_memory_only() {
    let twice = |tracked: bool| {
        move || {
            let bench = Bench::new();
            let own = shared(&bench.device, 128);
            let buffer = if tracked { &own } else { &bench.buffers[0] };
            run(&bench.queue, |command_buffer| {
                let encoder = command_buffer.blitCommandEncoder().expect("an encoder");
                encoder.fillBuffer_range_value(buffer, (0..128).into(), 1);
                encoder.fillBuffer_range_value(buffer, (64..128).into(), 2);
                encoder.endEncoding();
            });
        }
    };
    keeps_the_rules(twice(true));
    breaks_on_device(UNORDERED, twice(false));
}

#[test]
fn another_resource_in_the_same_place_is_the_same_memory() {
    breaks_on_device(UNORDERED, || {
        let bench = Bench::new();
        let command_buffer = bench.queue.commandBuffer().expect("a command buffer");
        let first = place(&bench.heap, 128, 1024);
        fill(&command_buffer, &first, 1);
        // SAFETY: what shares its memory is the simulator's to check.
        unsafe { first.makeAliasable() };
        fill(&command_buffer, &place(&bench.heap, 128, 1024), 2);
        command_buffer.commit();
    });
}
