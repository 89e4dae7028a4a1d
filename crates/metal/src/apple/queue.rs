use crate::apple::encoder::{MetalCommands, MetalEncoder, Recorder};
use crate::apple::flights::{Flight, Flights};
use crate::apple::lane::Lane;
use crate::apple::timeline::MetalPoint;
use mlx_serving_device::{CommandBuffer, DeviceError, Encoder, Point, Queue, Result, Submission};
use std::fmt;
use std::sync::Arc;

/// Which of a device's queues something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Compute,
    Transfer,
}

/// The contract's queue over an `MTLCommandQueue`.
pub(crate) struct MetalQueue {
    kind: Kind,
    lane: Arc<Lane>,
    recorder: Arc<Recorder>,
    flights: Arc<Flights>,
}

impl MetalQueue {
    pub(crate) fn new(kind: Kind, lane: Arc<Lane>, recorder: Arc<Recorder>, flights: Arc<Flights>) -> Arc<Self> {
        Arc::new(Self { kind, lane, recorder, flights })
    }
}

impl Queue for MetalQueue {
    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        self.flights.alive()?;
        Ok(Box::new(MetalEncoder::new(self.kind, self.recorder.clone())))
    }

    fn submit(
        &self,
        commands: Box<dyn CommandBuffer>,
        waits: &[Point],
        signal: Option<Point>,
    ) -> Result<Arc<dyn Submission>> {
        let commands = commands.into_any().downcast::<MetalCommands>();
        let commands = commands.map_err(|_| DeviceError::Contract("a command buffer of another device".into()))?;
        if commands.kind != self.kind {
            return Err(DeviceError::Contract(format!("a command buffer for {:?} on {:?}", commands.kind, self.kind)));
        }
        let waits = waits.iter().cloned().map(MetalPoint::new).collect::<Result<_>>()?;
        let flight = Flight::new(waits, commands.steps, signal.map(MetalPoint::new).transpose()?);
        let submission = flight.submission.clone();
        self.flights.admit()?;
        self.lane.submit(flight);
        Ok(submission)
    }
}

impl Drop for MetalQueue {
    /// Runs what has been submitted; what waits for a point that nobody has reached fails.
    fn drop(&mut self) {
        self.lane.drain();
    }
}

impl fmt::Debug for MetalQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetalQueue({:?})", self.kind)
    }
}
