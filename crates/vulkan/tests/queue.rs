//! Behavior of the Vulkan backend's queues beyond the contract.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::Watched;
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Buffer, Device, DeviceError, Op, Point, Queue, Status, Storage, Submission};
use mlx_serving_vulkan::VulkanOptions;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn copy(from: &Buffer, to: &Buffer) -> Op {
    Op::Copy(Copy { from: from.clone(), to: to.clone() })
}

fn room(device: &Watched, len: u64) -> Buffer {
    let buffer = device.new_buffer(len, Storage::Shared).unwrap();
    buffer.write(0, &vec![0xa5u8; len as usize]).unwrap();
    buffer
}

fn submit(
    queue: &Arc<dyn Queue>,
    ops: &[Op],
    waits: &[Point],
    signal: Option<&Point>,
) -> mlx_serving_device::Result<Arc<dyn Submission>> {
    let mut encoder = queue.encoder()?;
    ops.iter().try_for_each(|op| encoder.record(op.clone()))?;
    queue.submit(encoder.finish()?, waits, signal.cloned())
}

fn point(device: &Watched) -> Point {
    Point { timeline: device.new_timeline().unwrap(), value: 1 }
}

#[test]
fn a_copy_longer_than_a_binding_is_whole() {
    let Some(device) = Watched::open(VulkanOptions::default()) else { return };
    let len = device.info().max_buffer_len + 1_000_001;
    if len > 1 << 28 {
        return eprintln!("skipped: bindings of this device are longer than the test's memory");
    }
    let from = device.new_buffer(len, Storage::Shared).unwrap();
    let to = device.new_buffer(len, Storage::Shared).unwrap();
    from.lend(&mut |bytes| bytes.iter_mut().zip(0u64..).for_each(|(byte, i)| *byte = ((i * 31) >> 8) as u8)).unwrap();
    submit(&device.compute_queue(), &[copy(&from, &to)], &[], None).unwrap().wait(LIMIT).unwrap();
    assert!(from.to_vec::<u8>().unwrap() == to.to_vec::<u8>().unwrap());
}

#[test]
fn long_submissions_are_cut_and_stay_in_order() {
    let Some(device) = Watched::open(VulkanOptions { piece_work: Some(5000), ..VulkanOptions::default() }) else {
        return;
    };
    let chain: Vec<Buffer> = (0..=8u8).map(|_| room(&device, 40_000)).collect();
    chain[0].write(0, &[1u8; 40_000]).unwrap();
    // 10 001 words each: more than a piece may have.
    let ops: Vec<Op> = chain.windows(2).map(|pair| copy(&pair[0], &pair[1])).collect();
    let queue = device.compute_queue();
    submit(&queue, &ops, &[], None).unwrap().wait(LIMIT).unwrap();
    assert_eq!(chain[8].to_vec::<u8>().unwrap(), [1; 40_000]);
    assert_eq!(device.get().pieces(), 8);
    submit(&queue, &ops[..1], &[], None).unwrap().wait(LIMIT).unwrap();
    assert_eq!((device.get().pieces(), device.counters().submissions), (9, 2));
}

#[test]
fn a_profile_times_every_launch() {
    let Some(device) = Watched::open(VulkanOptions { profile: true, ..VulkanOptions::default() }) else { return };
    let (a, b, c) = (room(&device, 1 << 20), room(&device, 1 << 20), room(&device, 1 << 20));
    submit(&device.compute_queue(), &[copy(&a, &b), copy(&b, &c)], &[], None).unwrap().wait(LIMIT).unwrap();
    submit(&device.transfer_queue(), &[copy(&a, &b)], &[], None).unwrap().wait(LIMIT).unwrap();
    let profile = device.get().profile();
    assert_eq!(profile.len(), 1, "{profile:?}");
    assert_eq!((profile[0].kernel, profile[0].launches, profile[0].work), ("copy", 2, 2 * ((1 << 18) + 1)));
    assert!(profile[0].time > Duration::ZERO && profile[0].time <= device.counters().busy, "{profile:?}");
}

#[test]
fn recording_objects_are_used_again() {
    let Some(device) = Watched::open(VulkanOptions::default()) else { return };
    let (a, b, queue) = (room(&device, 64), room(&device, 64), device.compute_queue());
    let timeline = device.new_timeline().unwrap();
    for value in 1..=10_000u64 {
        let done = Point { timeline: timeline.clone(), value };
        submit(&queue, &[copy(&a, &b)], &[], Some(&done)).unwrap();
        if value > 3 {
            timeline.wait(value - 3, LIMIT).unwrap();
        }
    }
    timeline.wait(10_000, LIMIT).unwrap();
    assert!(device.get().bundles() <= 5, "{} for four in flight", device.get().bundles());
    drop(queue.encoder().unwrap());
    assert!(device.get().bundles() <= 5, "what is not submitted is returned, too");
}

#[test]
fn what_the_driver_refuses_fails_and_signals_and_the_queue_goes_on() {
    let Some(device) = Watched::open(VulkanOptions { piece_work: Some(5000), ..VulkanOptions::default() }) else {
        return;
    };
    let (a, b, c) = (room(&device, 40_000), room(&device, 40_000), room(&device, 40_000));
    a.write(0, &[1u8; 40_000]).unwrap();
    let (queue, gate, done) = (device.compute_queue(), point(&device), point(&device));
    let mut encoder = queue.encoder().unwrap();
    encoder.record(copy(&a, &b)).unwrap();
    encoder.wait(gate.clone()).unwrap();
    encoder.record(copy(&b, &c)).unwrap();
    let refused = queue.submit(encoder.finish().unwrap(), &[], Some(done.clone())).unwrap();
    device.get().refuse_next_piece();
    gate.timeline.signal(1);
    let error = refused.wait(LIMIT).unwrap_err();
    assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
    done.wait(Duration::ZERO).unwrap();
    assert_eq!((b.to_vec::<u8>().unwrap(), c.to_vec::<u8>().unwrap()), (vec![1; 40_000], vec![0xa5; 40_000]));
    submit(&queue, &[copy(&b, &c)], &[], None).unwrap().wait(LIMIT).unwrap();
    assert_eq!(c.to_vec::<u8>().unwrap(), [1; 40_000]);
}

#[test]
fn a_lost_device_ends_everything_and_refuses_the_rest() {
    let Some(device) = Watched::open(VulkanOptions::default()) else { return };
    let (a, b) = (room(&device, 64), room(&device, 64));
    let (compute, transfer) = (device.compute_queue(), device.transfer_queue());
    let (never, done) = (point(&device), point(&device));
    let held = submit(&compute, &[copy(&a, &b)], std::slice::from_ref(&never), Some(&done)).unwrap();
    let behind = submit(&transfer, &[copy(&b, &a)], std::slice::from_ref(&done), None).unwrap();
    let recorded = compute.encoder().unwrap().finish().unwrap();
    let waiter = std::thread::spawn({
        let held = held.clone();
        move || held.wait(LIMIT)
    });
    device.get().lose();
    for submission in [&held, &behind] {
        assert!(matches!(submission.status(), Status::Failed(DeviceError::Lost(_))), "{submission:?}");
    }
    assert!(matches!(waiter.join().unwrap(), Err(DeviceError::Lost(_))));
    done.wait(Duration::ZERO).unwrap();
    assert!(matches!(compute.submit(recorded, &[], None), Err(DeviceError::Lost(_))));
    assert!(matches!(compute.encoder().err(), Some(DeviceError::Lost(_))));
    assert!(matches!(device.new_buffer(4, Storage::Shared), Err(DeviceError::Lost(_))));
    assert!(matches!(device.new_heap(4, Storage::Shared).err(), Some(DeviceError::Lost(_))));
    assert!(matches!(device.new_timeline().err(), Some(DeviceError::Lost(_))));
    never.timeline.signal(1);
    let own = device.counters().bytes_allocated;
    drop((a, b));
    assert_eq!((own, device.counters().bytes_allocated), (128, 0), "the memory can still be released");
}

#[test]
fn a_machine_goes_on_with_another_device_after_a_loss() {
    let Some(lost) = Watched::open(VulkanOptions::default()) else { return };
    lost.get().lose();
    let Some(device) = Watched::open(VulkanOptions::default()) else { return };
    let (a, b) = (room(&device, 64), room(&device, 64));
    submit(&device.compute_queue(), &[copy(&a, &b)], &[], None).unwrap().wait(LIMIT).unwrap();
}

#[test]
fn dropping_the_device_ends_waits_that_nobody_will_end() {
    let Some(device) = Watched::open(VulkanOptions::default()) else { return };
    let (never, done) = (point(&device), point(&device));
    let (a, b, queue) = (room(&device, 64), room(&device, 64), device.compute_queue());
    let mut encoder = queue.encoder().unwrap();
    encoder.record(copy(&a, &b)).unwrap();
    encoder.wait(never).unwrap();
    encoder.record(copy(&b, &a)).unwrap();
    let submission = queue.submit(encoder.finish().unwrap(), &[], Some(done.clone())).unwrap();
    drop((device, queue, a, b));
    assert!(matches!(submission.status(), Status::Failed(DeviceError::Lost(_))), "{submission:?}");
    done.wait(Duration::ZERO).unwrap();
}

#[test]
fn timelines_and_commands_of_another_device_are_refused() {
    let Some(device) = Watched::open(VulkanOptions::default()) else { return };
    let Some(other) = Watched::open(VulkanOptions::default()) else { return };
    let (queue, foreign) = (device.compute_queue(), point(&other));
    let commands = || queue.encoder().unwrap().finish().unwrap();
    assert!(matches!(queue.submit(commands(), std::slice::from_ref(&foreign), None), Err(DeviceError::Contract(_))));
    assert!(matches!(queue.submit(commands(), &[], Some(foreign)), Err(DeviceError::Contract(_))));
    let theirs = other.compute_queue().encoder().unwrap().finish().unwrap();
    assert!(matches!(queue.submit(theirs, &[], None), Err(DeviceError::Contract(_))));
    let (own, memory) = (room(&device, 4), room(&other, 4));
    let refused = device.transfer_queue().encoder().unwrap().record(copy(&own, &memory));
    assert!(matches!(refused, Err(DeviceError::Contract(_))));
}

#[test]
fn an_op_that_is_refused_leaves_the_others() {
    let Some(device) = Watched::open(VulkanOptions::default()) else { return };
    let Some(other) = Watched::open(VulkanOptions::default()) else { return };
    let (a, b, c, foreign) = (room(&device, 4), room(&device, 4), room(&device, 4), room(&other, 4));
    a.write(0, &[1u8; 4]).unwrap();
    for queue in [device.compute_queue(), device.transfer_queue()] {
        let mut encoder = queue.encoder().unwrap();
        encoder.record(copy(&a, &b)).unwrap();
        assert!(matches!(encoder.record(copy(&foreign, &a)), Err(DeviceError::Contract(_))));
        assert!(matches!(encoder.record(copy(&a, &a)), Err(DeviceError::Contract(_))));
        encoder.record(copy(&b, &c)).unwrap();
        queue.submit(encoder.finish().unwrap(), &[], None).unwrap().wait(LIMIT).unwrap();
        assert_eq!(c.to_vec::<u8>().unwrap(), [1; 4]);
    }
}

#[test]
fn many_threads_may_submit_and_wait() {
    let Some(device) = Watched::open(VulkanOptions::default()) else { return };
    std::thread::scope(|scope| {
        for byte in 0..4u8 {
            let device = &device;
            scope.spawn(move || {
                let queues = [device.compute_queue(), device.transfer_queue()];
                let (from, to) = (room(device, 1000), room(device, 1000));
                let timeline = device.new_timeline().unwrap();
                for value in 1..=100u64 {
                    let expected = byte.wrapping_mul(50).wrapping_add(value as u8);
                    from.write(0, &[expected; 1000]).unwrap();
                    let done = Point { timeline: timeline.clone(), value };
                    submit(&queues[value as usize % 2], &[copy(&from, &to)], &[], Some(&done)).unwrap();
                    done.wait(LIMIT).unwrap();
                    assert_eq!(to.to_vec::<u8>().unwrap(), [expected; 1000]);
                }
            });
        }
    });
}
