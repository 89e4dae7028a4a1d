//! Steps that every case takes with a device: memory with something in it, and ops run to their end.

use crate::{Arithmetic, Buffer, Device, Op, Point, Queue, Result, Storage, Submission};
use std::sync::Arc;
use std::time::Duration;

/// Time that only a hanging device takes: a software driver may compile a kernel for a minute when it first runs.
pub(super) const LIMIT: Duration = Duration::from_secs(600);

/// Shared memory for `values`; 4 bytes at least.
pub(super) fn upload<T: bytemuck::NoUninit>(device: &Arc<dyn Device>, values: &[T]) -> Buffer {
    let buffer = room(device, size_of_val(values).max(4));
    buffer.write(0, values).expect("shared memory is written by the host");
    buffer
}

/// Shared memory of `bytes`, all ones: NaN as `f32`, and no token.
pub(super) fn room(device: &Arc<dyn Device>, bytes: usize) -> Buffer {
    let buffer = device.new_buffer(bytes as u64, Storage::Shared).expect("a small buffer is granted");
    buffer.write(0, &vec![u8::MAX; bytes]).expect("shared memory is written by the host");
    buffer
}

/// The first `count` values of shared memory.
pub(super) fn download<T: bytemuck::Pod>(buffer: &Buffer, count: usize) -> Vec<T> {
    let mut values = vec![T::zeroed(); count];
    buffer.read(0, &mut values).expect("shared memory is read by the host");
    values
}

/// Submits `ops` as one command buffer.
pub(super) fn submit(
    queue: &Arc<dyn Queue>,
    ops: impl IntoIterator<Item = Op>,
    waits: &[Point],
    signal: Option<Point>,
) -> Result<Arc<dyn Submission>> {
    let mut encoder = queue.encoder()?;
    ops.into_iter().try_for_each(|op| encoder.record(op))?;
    queue.submit(encoder.finish()?, waits, signal)
}

/// Runs one op on the compute queue: its error, whether it shows when it is recorded or when it runs.
pub(super) fn try_run(device: &Arc<dyn Device>, op: Op) -> Result<()> {
    submit(&device.compute_queue(), [op], &[], None)?.wait(LIMIT)
}

/// Runs one op that is good.
pub(super) fn run(device: &Arc<dyn Device>, op: Op) {
    try_run(device, op).expect("a valid op runs");
}

/// The relative L2 error that matrix products and attention may have.
pub(super) fn tolerance(device: &Arc<dyn Device>) -> f64 {
    match device.info().arithmetic {
        Arithmetic::Exact => 1e-5,
        Arithmetic::Fast => 2e-2,
    }
}
