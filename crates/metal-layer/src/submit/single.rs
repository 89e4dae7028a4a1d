use crate::allocate::{Allocate, Allocation};
use crate::frontier::Track;
use crate::observe::intervals::Intervals;
use crate::observe::stats::RingStats;
use crate::submit::{InFlight, Lease, Slot, Submit};
use crate::wiring::Wiring;
use mlx_serving_device::{Device, DeviceError, Point, Result, Storage};
use std::sync::Arc;
use std::time::Duration;

/// The plain way: one command buffer a step, submitted and waited for.
#[derive(Debug)]
pub struct SingleSubmission {
    device: Arc<dyn Device>,
    /// Step inputs, dropped before the allocator, which says at its end what is not released.
    inputs: Option<Allocation>,
    allocate: Arc<dyn Allocate>,
    compute: Track,
    lease: Lease,
    in_flight: bool,
    intervals: Intervals,
    stats: RingStats,
}

impl SingleSubmission {
    /// Submits to the compute queue of `device`, signaling `compute`.
    pub fn new(wiring: &Wiring, allocate: Arc<dyn Allocate>, compute: &Track) -> Self {
        let (device, compute, intervals) = (wiring.device.clone(), compute.clone(), wiring.intervals.clone());
        let stats = RingStats { ring_size: 1, available_count: 1, ..RingStats::default() };
        Self { device, allocate, compute, inputs: None, lease: Lease::default(), in_flight: false, intervals, stats }
    }
}

impl Submit for SingleSubmission {
    fn reserve_inputs(&mut self, bytes: u64) -> Result<()> {
        self.inputs = Some(self.allocate.allocate(bytes, Storage::Shared, "step inputs")?);
        Ok(())
    }

    fn depth(&self) -> usize {
        1
    }

    fn acquire(&mut self) -> Result<Slot> {
        if self.in_flight {
            return Err(DeviceError::Contract("the only slot is in flight; complete it first".into()));
        }
        let inputs = self
            .inputs
            .as_ref()
            .ok_or_else(|| DeviceError::Contract("no step inputs were reserved; call reserve_inputs first".into()))?;
        let encoder = self.device.compute_queue().encoder()?;
        self.stats.total_acquired += 1;
        Ok(Slot { index: 0, inputs: (**inputs).clone(), encoder, _lease: self.lease.clone() })
    }

    fn submit(&mut self, slot: Slot, waits: &[Point]) -> Result<InFlight> {
        let commands = slot.encoder.finish()?;
        let point = self.compute.issue();
        let submission = self.device.compute_queue().submit(commands, waits, Some(point.clone()))?;
        self.stats.total_submitted += 1;
        self.in_flight = true;
        Ok(InFlight { index: slot.index, submission, point })
    }

    fn complete(&mut self, in_flight: &InFlight, limit: Duration) -> Result<()> {
        let result = in_flight.submission.wait(limit);
        if !matches!(result, Err(DeviceError::Timeout { .. })) {
            self.in_flight = false;
            self.intervals.note_step(in_flight.submission.as_ref());
        }
        result
    }

    fn note_discarded(&mut self, rows: u64) {
        self.stats.discarded_steps += rows;
    }

    fn stats(&self) -> RingStats {
        let taken = usize::from(self.in_flight || Arc::strong_count(&self.lease) > 1);
        RingStats {
            available_count: 1 - taken,
            in_flight_count: usize::from(self.in_flight),
            total_released: self.stats.total_acquired - taken as u64,
            ..self.stats.clone()
        }
    }
}
