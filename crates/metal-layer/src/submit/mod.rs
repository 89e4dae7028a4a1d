//! Steps on the compute queue: the contract of a submitter, the plain one with a single step in flight, and the ring with several.

pub(crate) mod ring;
pub(crate) mod single;

use crate::observe::stats::RingStats;
use mlx_serving_device::{Buffer, Encoder, Point, Result, Submission};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Hands out slots and submits them to the compute queue. One thread owns it.
pub trait Submit: fmt::Debug + Send {
    /// Gives every slot `bytes` of step inputs; before the first slot is taken.
    fn reserve_inputs(&mut self, bytes: u64) -> Result<()>;
    /// Slots that may be in flight now.
    fn depth(&self) -> usize;
    /// A free slot with a fresh encoder. Waits, within bounds, if all are in flight. A slot that is dropped is free again.
    fn acquire(&mut self) -> Result<Slot>;
    /// Submits a slot; its ops wait for `waits` on the device.
    fn submit(&mut self, slot: Slot, waits: &[Point]) -> Result<InFlight>;
    /// Waits until a slot has completed and frees it. Slots complete in the order of submission. After
    /// [`mlx_serving_device::DeviceError::Timeout`] the slot is still in flight.
    fn complete(&mut self, in_flight: &InFlight, limit: Duration) -> Result<()>;
    /// Notes rows that were computed ahead and are discarded.
    fn note_discarded(&mut self, rows: u64);
    /// Reason for running as the baseline does, in an optimization.
    fn fallen_back(&self) -> Option<String> {
        None
    }
    /// Counters.
    fn stats(&self) -> RingStats;
}

/// A slot being recorded.
pub struct Slot {
    /// Number of the slot.
    pub index: usize,
    /// Step inputs, in shared storage: the host may write them until the slot is submitted.
    pub inputs: Buffer,
    /// Records the slot's ops.
    pub encoder: Box<dyn Encoder>,
    /// Shows its submitter that it is being recorded.
    pub(crate) _lease: Lease,
}

/// Shared by a slot that is being recorded and its submitter.
pub(crate) type Lease = Arc<()>;

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.index)
    }
}

/// A slot in flight.
#[derive(Debug)]
pub struct InFlight {
    /// Number of the slot.
    pub index: usize,
    /// Outcome of the slot's ops.
    pub submission: Arc<dyn Submission>,
    /// Reached when the slot's ops have ended.
    pub point: Point,
}
