//! Queues, timelines and submissions.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::ops::{Copy, Observe};
use mlx_serving_device::{Buffer, Device, DeviceError, Op, Point, Queue, Status, Storage};
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn device() -> Arc<CpuDevice> {
    CpuDevice::new(&CpuOptions { threads: Some(2), ..CpuOptions::default() }).unwrap()
}

fn buffer(device: &CpuDevice, bytes: &[u8]) -> Buffer {
    let buffer = device.new_buffer(bytes.len() as u64, Storage::Shared).unwrap();
    buffer.write(0, bytes).unwrap();
    buffer
}

fn copy(from: &Buffer, to: &Buffer) -> Op {
    Op::Copy(Copy { from: from.clone(), to: to.clone() })
}

fn submit(
    queue: &Arc<dyn Queue>,
    ops: Vec<Op>,
    waits: &[Point],
    signal: Option<Point>,
) -> Arc<dyn mlx_serving_device::Submission> {
    let mut encoder = queue.encoder().unwrap();
    ops.into_iter().for_each(|op| encoder.record(op).unwrap());
    queue.submit(encoder.finish().unwrap(), waits, signal).unwrap()
}

/// An op that records well and fails when it runs.
fn failing(device: &CpuDevice) -> Op {
    let tokens = device.new_buffer(4, Storage::Shared).unwrap();
    tokens.write(0, &[9u32]).unwrap();
    let history = device.new_buffer(16, Storage::Shared).unwrap();
    Op::Observe(Observe { history, vocab: 4, slot: 0, tokens, count: 1, prompt: 1 })
}

#[test]
fn ops_run_in_order_across_command_buffers() {
    let device = device();
    let (a, b, c) = (buffer(&device, &[1; 1 << 20]), buffer(&device, &[2; 1 << 20]), buffer(&device, &[3; 1 << 20]));
    let queue = device.compute_queue();
    submit(&queue, vec![copy(&a, &b)], &[], None);
    let last = submit(&queue, vec![copy(&b, &c), copy(&c, &a)], &[], None);
    last.wait(LIMIT).unwrap();
    assert!(a.to_vec::<u8>().unwrap().iter().chain(&c.to_vec::<u8>().unwrap()).all(|&x| x == 1));
    assert_eq!(device.counters().submissions, 2);
    assert!(device.counters().busy > Duration::ZERO);
    let (began, ended) = last.times().unwrap();
    assert!(began <= ended && ended <= device.now());
}

#[test]
fn a_submission_waits_for_its_points() {
    let device = device();
    let (a, b) = (buffer(&device, &[1]), buffer(&device, &[2]));
    let timeline = device.new_timeline().unwrap();
    let at = |value| Point { timeline: timeline.clone(), value };
    let second = submit(&device.compute_queue(), vec![copy(&a, &b)], &[at(2)], Some(at(3)));
    assert_eq!(second.status(), Status::Pending);
    assert!(matches!(second.wait(Duration::from_millis(5)), Err(DeviceError::Timeout { .. })));
    let first = submit(&device.transfer_queue(), vec![copy(&buffer(&device, &[7]), &a)], &[at(1)], Some(at(2)));
    timeline.signal(1);
    at(3).wait(LIMIT).unwrap();
    assert_eq!((first.status(), second.status()), (Status::Completed, Status::Completed));
    assert_eq!(b.to_vec::<u8>().unwrap(), [7]);
}

#[test]
fn a_wait_between_ops_holds_only_what_follows() {
    let device = device();
    let (a, b, c) = (buffer(&device, &[1]), buffer(&device, &[2]), buffer(&device, &[3]));
    let timeline = device.new_timeline().unwrap();
    let queue = device.compute_queue();
    let mut encoder = queue.encoder().unwrap();
    encoder.record(copy(&a, &b)).unwrap();
    encoder.wait(Point { timeline: timeline.clone(), value: 5 }).unwrap();
    encoder.record(copy(&b, &c)).unwrap();
    let submission = queue.submit(encoder.finish().unwrap(), &[], None).unwrap();
    assert_eq!(submission.status(), Status::Pending);
    timeline.signal(5);
    submission.wait(LIMIT).unwrap();
    assert_eq!(c.to_vec::<u8>().unwrap(), [1]);
}

#[test]
fn a_failure_signals_all_the_same_and_the_next_one_runs() {
    let device = device();
    let (a, b) = (buffer(&device, &[1]), buffer(&device, &[2]));
    let timeline = device.new_timeline().unwrap();
    let queue = device.compute_queue();
    let failed =
        submit(&queue, vec![failing(&device), copy(&a, &b)], &[], Some(Point { timeline: timeline.clone(), value: 1 }));
    timeline.wait(1, LIMIT).unwrap();
    assert!(matches!(failed.status(), Status::Failed(DeviceError::Contract(_))), "{:?}", failed.status());
    assert_eq!(b.to_vec::<u8>().unwrap(), [2], "what follows the failure does not run");
    submit(&queue, vec![copy(&a, &b)], &[], None).wait(LIMIT).unwrap();
    assert_eq!(b.to_vec::<u8>().unwrap(), [1]);
}

#[test]
fn each_queue_takes_its_own_only() {
    let device = device();
    let (compute, transfer) = (device.compute_queue(), device.transfer_queue());
    assert!(transfer.encoder().unwrap().record(failing(&device)).is_err());
    let commands = transfer.encoder().unwrap().finish().unwrap();
    assert!(matches!(compute.submit(commands, &[], None), Err(DeviceError::Contract(_))));
}

#[test]
fn dropping_the_device_ends_waits_that_nobody_will_end() {
    let device = device();
    let (a, b) = (buffer(&device, &[1]), buffer(&device, &[2]));
    let never = Point { timeline: device.new_timeline().unwrap(), value: 1 };
    let submission = submit(&device.compute_queue(), vec![copy(&a, &b)], &[never], None);
    drop(device);
    assert!(matches!(submission.status(), Status::Failed(DeviceError::Lost(_))), "{:?}", submission.status());
}

#[test]
fn a_completed_submission_holds_no_memory() {
    let device = device();
    let (a, b) = (buffer(&device, &[0; 5000]), buffer(&device, &[0; 5000]));
    let done = Point { timeline: device.new_timeline().unwrap(), value: 1 };
    let submission = submit(&device.compute_queue(), vec![copy(&a, &b)], &[], Some(done.clone()));
    done.wait(LIMIT).unwrap();
    drop((a, b));
    assert_eq!(device.counters().bytes_allocated, 0);
    assert_eq!(submission.status(), Status::Completed);
    assert_eq!(device.counters().allocations, 2);
}
