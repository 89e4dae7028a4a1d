//! The real backend on the simulated device, for tests that need no more than copies.
#![allow(dead_code, reason = "each test file uses its part")]

// The bindings link to the simulator's symbols only if the crate is named.
extern crate metal_sim;

use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Buffer, Device, Op, Point, Queue, Result, Storage, Submission};
use mlx_serving_metal::{MetalDevice, MetalOptions};
use std::sync::Arc;
use std::time::Duration;

/// Time limit that no test comes near.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Too short for anything to happen that is not allowed to.
pub(crate) const SHORT: Duration = Duration::from_millis(20);

pub(crate) fn open() -> Arc<MetalDevice> {
    MetalDevice::open(&MetalOptions::default()).expect("there is always a simulated device")
}

/// Drops the device and fails if anything of it is left.
pub(crate) fn close(device: Arc<MetalDevice>) {
    drop(device);
    metal_sim::drain(LIMIT);
    let leaks = metal_sim::leaks();
    assert!(leaks.is_empty(), "{leaks:?}");
}

pub(crate) fn filled(device: &MetalDevice, byte: u8, len: usize) -> Buffer {
    let buffer = device.new_buffer(len as u64, Storage::Shared).expect("a small buffer is granted");
    buffer.write(0, &vec![byte; len]).expect("shared");
    buffer
}

pub(crate) fn bytes(buffer: &Buffer) -> Vec<u8> {
    buffer.to_vec().expect("shared")
}

pub(crate) fn copy(from: &Buffer, to: &Buffer) -> Op {
    Op::Copy(Copy { from: from.clone(), to: to.clone() })
}

pub(crate) fn point(device: &MetalDevice, value: u64) -> Point {
    Point { timeline: device.new_timeline().expect("a timeline is granted"), value }
}

pub(crate) fn try_submit(
    queue: &Arc<dyn Queue>,
    ops: impl IntoIterator<Item = Op>,
    waits: &[Point],
    signal: Option<&Point>,
) -> Result<Arc<dyn Submission>> {
    let mut encoder = queue.encoder()?;
    ops.into_iter().try_for_each(|op| encoder.record(op))?;
    queue.submit(encoder.finish()?, waits, signal.cloned())
}

pub(crate) fn submit(
    queue: &Arc<dyn Queue>,
    ops: impl IntoIterator<Item = Op>,
    waits: &[Point],
    signal: Option<&Point>,
) -> Arc<dyn Submission> {
    try_submit(queue, ops, waits, signal).expect("valid commands are submitted")
}
