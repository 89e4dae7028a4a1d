//! Behavior of the CPU backend's queues beyond the contract.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::{Device, DeviceError, Point, Status};
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
