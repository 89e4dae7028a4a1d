//! Behavior of the backend on a device that refuses, fails, is lost, or never signals.
mod rig;

use metal_sim::faults;
use mlx_serving_device::{Device, DeviceError, Point, Status, Storage};
use rig::{LIMIT, SHORT, bytes, close, copy, filled, open, point, submit, try_submit};
use std::time::Duration;

#[test]
fn a_refused_allocation_says_how_much_and_counts_for_nothing() {
    faults::reset();
    let device = open();
    for storage in [Storage::Shared, Storage::Private] {
        faults::refuse_allocation(0);
        let heap = device.new_heap(4096, storage).err();
        faults::refuse_allocation(0);
        let buffer = device.new_buffer(4096, storage).err();
        for refused in [heap, buffer] {
            assert!(matches!(refused, Some(DeviceError::OutOfMemory { requested: 4096, .. })), "{refused:?}");
        }
    }
    assert_eq!(device.counters().allocations, 0);
    drop(device.new_heap(4096, Storage::Private).expect("memory is back"));
    close(device);
}

#[test]
fn a_failed_command_buffer_is_reported_and_wakes_all_its_waiters() {
    faults::reset();
    let device = open();
    let (compute, transfer) = (device.compute_queue(), device.transfer_queue());
    let [a, b, c] = [1, 2, 3].map(|byte| filled(&device, byte, 64));
    let done = point(&device, 1);
    let waiter = submit(&transfer, [copy(&a, &c)], std::slice::from_ref(&done), None);
    // Long enough for it to have begun, so that the fault strikes the next one.
    assert!(waiter.wait(10 * SHORT).is_err(), "it waits on the device");
    faults::fail_command_buffer(0);
    let failed = submit(&compute, [copy(&a, &b)], &[], Some(&done));
    let next = submit(&compute, [copy(&a, &b)], &[], None);
    done.wait(LIMIT).expect("a failure signals");
    waiter.wait(LIMIT).expect("the other queue goes on");
    next.wait(LIMIT).expect("so does its own");
    assert_eq!((bytes(&b), bytes(&c)), (vec![1; 64], vec![1; 64]));
    assert!(matches!(failed.status(), Status::Failed(DeviceError::CommandFailed(_))), "{:?}", failed.status());
    drop((compute, transfer, a, b, c, done, waiter, failed, next));
    close(device);
}

#[test]
fn a_lost_device_ends_what_runs_and_refuses_the_rest() {
    faults::reset();
    let device = open();
    let queue = device.compute_queue();
    let (gate, done) = (point(&device, 1), point(&device, 1));
    let hung = submit(&queue, [], std::slice::from_ref(&gate), Some(&done));
    assert!(hung.wait(SHORT).is_err());
    faults::lose_device();
    done.wait(LIMIT).expect("nobody waits for ever");
    assert!(matches!(hung.status(), Status::Failed(DeviceError::Lost(_))), "{:?}", hung.status());
    assert!(matches!(queue.encoder().err(), Some(DeviceError::Lost(_))));
    assert!(matches!(device.new_heap(4096, Storage::Private).err(), Some(DeviceError::Lost(_))));
    assert!(matches!(device.new_buffer(4096, Storage::Shared).err(), Some(DeviceError::Lost(_))));
    assert!(matches!(device.new_timeline().err(), Some(DeviceError::Lost(_))));
    drop((queue, hung, gate, done));
    close(device);
    faults::reset();
    let again = open();
    let (a, b) = (filled(&again, 1, 64), filled(&again, 2, 64));
    submit(&again.compute_queue(), [copy(&a, &b)], &[], None).wait(LIMIT).expect("a reopened device works");
    drop((a, b));
    close(again);
}

#[test]
fn an_event_that_the_device_does_not_signal_is_signaled_by_hand() {
    faults::reset();
    let device = open();
    let [a, b] = [1, 2].map(|byte| filled(&device, byte, 64));
    let done = point(&device, 1);
    faults::withhold_signals(true);
    let first = submit(&device.compute_queue(), [], &[], Some(&done));
    let second = submit(&device.transfer_queue(), [copy(&a, &b)], std::slice::from_ref(&done), None);
    second.wait(LIMIT).expect("the end of the first raises its point");
    assert_eq!((first.status(), bytes(&b)), (Status::Completed, vec![1; 64]));
    drop((a, b, done));
    close(device);
}

#[test]
fn what_waits_for_a_point_that_nobody_reaches_fails_when_the_device_is_dropped() {
    faults::reset();
    let device = open();
    let [a, b, c] = [1, 2, 3].map(|byte| filled(&device, byte, 64));
    let never = point(&device, 1);
    let [first, second] = [(device.compute_queue(), &b), (device.transfer_queue(), &c)]
        .map(|(queue, to)| submit(&queue, [copy(&a, to)], std::slice::from_ref(&never), None));
    let timeout = first.wait(SHORT);
    assert!(matches!(timeout, Err(DeviceError::Timeout { .. })), "{timeout:?}");
    drop((a, b, c));
    assert_eq!(device.counters().bytes_allocated, 192, "submissions hold their memory");
    drop(device);
    for submission in [&first, &second] {
        assert!(matches!(submission.status(), Status::Failed(DeviceError::Lost(_))), "{:?}", submission.status());
    }
    assert_eq!(never.timeline.value(), 0, "the host sees no point that was not reached");
    drop((first, second, never));
    close(open());
}

#[test]
fn any_number_of_submissions_may_wait() {
    faults::reset();
    let device = open();
    let queue = device.transfer_queue();
    let (gate, timeline) = (point(&device, 1), device.new_timeline().expect("a timeline is granted"));
    let chain: Vec<_> = (0..=200u8).map(|byte| filled(&device, byte, 16)).collect();
    let submissions: Vec<_> = (1..=200u64)
        .map(|value| {
            let done = Point { timeline: timeline.clone(), value };
            let copies = copy(&chain[value as usize - 1], &chain[value as usize]);
            submit(&queue, [copies], std::slice::from_ref(&gate), Some(&done))
        })
        .collect();
    assert!(submissions.iter().all(|submission| submission.status() == Status::Pending), "submitting does not block");
    gate.timeline.signal(1);
    timeline.wait(200, LIMIT).expect("all run");
    assert!(submissions.iter().all(|submission| submission.status() == Status::Completed));
    assert_eq!(bytes(&chain[200]), [0; 16], "in order");
    drop((queue, gate, timeline, chain, submissions));
    close(device);
}

#[test]
fn the_device_says_what_it_is() {
    faults::reset();
    faults::set_working_set(123 << 20);
    faults::set_unified_memory(false);
    let device = open();
    let info = device.info();
    assert_eq!((info.memory_budget, info.unified_memory, info.backend), (123 << 20, false, "metal"));
    let private = device.new_buffer(64, Storage::Private).expect("granted");
    assert!(matches!(private.write(0, &[0u8]), Err(DeviceError::Contract(_))), "the host cannot reach it");
    drop(private);
    close(device);
}

#[test]
fn a_timeline_of_another_backend_is_refused() {
    faults::reset();
    let device = open();
    let fake = mlx_serving_device::fake::FakeDevice::new(Default::default()).expect("threads start");
    let foreign = Point { timeline: fake.new_timeline().expect("granted"), value: 0 };
    let queue = device.compute_queue();
    for (waits, signal) in [(vec![foreign.clone()], None), (vec![], Some(&foreign))] {
        let outcome = try_submit(&queue, [], &waits, signal).err();
        assert!(matches!(outcome, Some(DeviceError::Contract(_))), "{outcome:?}");
    }
    drop(queue);
    close(device);
}

#[test]
fn slow_command_buffers_make_the_queue_busy_for_as_long() {
    faults::reset();
    let device = open();
    faults::slow_down(Duration::from_millis(20));
    let submissions = [(); 3].map(|()| submit(&device.compute_queue(), [], &[], None));
    submissions.iter().for_each(|submission| submission.wait(LIMIT).expect("they end"));
    let busy = device.counters().busy;
    assert!(busy >= Duration::from_millis(60) && busy < LIMIT, "{busy:?}");
    drop(submissions);
    close(device);
}
