use crate::apple::record::{MetalCommands, MetalEncoder, Recorder};
use crate::apple::run::{Flight, Flights, SubmitQueue};
use crate::apple::timeline::MetalPoint;
use mlx_serving_device::{CommandBuffer, Encoder, Point, Queue, QueueId, Result, Submission};
use std::fmt;
use std::sync::Arc;

/// The contract's queue over an `MTLCommandQueue`.
pub(crate) struct MetalQueue {
    id: QueueId,
    submit_queue: Arc<SubmitQueue>,
    recorder: Arc<Recorder>,
    flights: Arc<Flights>,
}

impl MetalQueue {
    pub(crate) fn new(
        id: QueueId,
        submit_queue: Arc<SubmitQueue>,
        recorder: Arc<Recorder>,
        flights: Arc<Flights>,
    ) -> Arc<Self> {
        Arc::new(Self { id, submit_queue, recorder, flights })
    }
}

impl Queue for MetalQueue {
    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        self.flights.alive()?;
        Ok(Box::new(MetalEncoder::new(self.id, self.recorder.clone())))
    }

    fn submit(
        &self,
        commands: Box<dyn CommandBuffer>,
        waits: &[Point],
        signal: Option<Point>,
    ) -> Result<Arc<dyn Submission>> {
        let commands: MetalCommands = *self.id.take(commands)?;
        let waits = waits.iter().cloned().map(MetalPoint::new).collect::<Result<_>>()?;
        let flight = Flight::new(waits, commands.steps, signal.map(MetalPoint::new).transpose()?);
        let submission = flight.submission.clone();
        self.flights.admit()?;
        self.submit_queue.submit(flight);
        Ok(submission)
    }
}

impl Drop for MetalQueue {
    /// Runs what has been submitted; what waits for a point that nobody has reached fails.
    fn drop(&mut self) {
        self.submit_queue.drain();
    }
}

impl fmt::Debug for MetalQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetalQueue({:?})", self.id.kind)
    }
}
