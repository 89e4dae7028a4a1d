//! Behavior of the CPU backend's queues beyond the contract.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Device, DeviceError, Op, Point, Status, Storage};
use std::time::Duration;

#[test]
fn dropping_the_device_ends_waits_that_nobody_will_end() {
    let device = CpuDevice::new(&CpuOptions { threads: Some(2), ..CpuOptions::default() }).unwrap();
    let queue = device.compute_queue();
    let never = Point { timeline: device.new_timeline().unwrap(), value: 1 };
    let done = Point { timeline: device.new_timeline().unwrap(), value: 1 };
    let commands = queue.encoder().unwrap().finish().unwrap();
    let submission = queue.submit(commands, &[never], Some(done.clone())).unwrap();
    drop((device, queue));
    assert!(matches!(submission.status(), Status::Failed(DeviceError::Lost(_))), "{:?}", submission.status());
    done.wait(Duration::ZERO).unwrap();
}

#[test]
fn a_submission_begins_with_its_first_op_and_not_with_a_wait() {
    let device = CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
    let buffer = || device.new_buffer(4096, Storage::Shared).unwrap();
    let (from, to, point) = (buffer(), buffer(), Point { timeline: device.new_timeline().unwrap(), value: 1 });
    let mut encoder = device.compute_queue().encoder().unwrap();
    encoder.wait(point.clone()).unwrap();
    encoder.record(Op::Copy(Copy { from, to })).unwrap();
    let submission = device.compute_queue().submit(encoder.finish().unwrap(), &[], None).unwrap();
    let signaled = device.now();
    point.timeline.signal(1);
    submission.wait(Duration::from_secs(60)).unwrap();
    let (began, ended) = submission.times().unwrap();
    assert!(signaled <= began && began <= ended, "{signaled:?} {began:?} {ended:?}");
}
