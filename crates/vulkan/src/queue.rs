use crate::record::{Recorder, VulkanCommands, VulkanEncoder};
use crate::run::{Executor, Mark, VulkanSubmission, VulkanTimeline};
use mlx_serving_device::{CommandBuffer, Encoder, Point, Queue, QueueId, Result, Submission};
use std::fmt;
use std::sync::Arc;

/// A queue of the device: compute or transfer.
pub(crate) struct VulkanQueue {
    pub(crate) id: QueueId,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) executor: Arc<Executor>,
}

impl VulkanQueue {
    /// The mark of a point of this device.
    fn mark(&self, point: &Point) -> Result<Mark> {
        let timeline = point.timeline_as::<VulkanTimeline>()?;
        if !std::ptr::eq(timeline.dispatcher.as_ptr(), Arc::as_ptr(&self.executor.dispatcher)) {
            return Err(point.foreign());
        }
        Ok(Mark { counter: timeline.counter.clone(), value: point.value })
    }
}

impl Queue for VulkanQueue {
    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(VulkanEncoder::new(self.id, &self.recorder)?))
    }

    fn submit(
        &self,
        commands: Box<dyn CommandBuffer>,
        waits: &[Point],
        signal: Option<Point>,
    ) -> Result<Arc<dyn Submission>> {
        let mut commands: VulkanCommands = *self.id.take(commands)?;
        let marks = |points: &[Point]| points.iter().map(|point| self.mark(point)).collect::<Result<Vec<_>>>();
        let (waits, signal) = (marks(waits)?, signal.map(|point| self.mark(&point)).transpose()?);
        let pieces = std::mem::take(&mut commands.pieces).into_iter();
        let pieces = pieces.map(|piece| Ok((marks(&piece.waits)?, piece.tape))).collect::<Result<Vec<_>>>()?;
        let dispatcher = &self.executor.dispatcher;
        let ending = dispatcher.submit(commands, waits, pieces, signal)?;
        Ok(Arc::new(VulkanSubmission { ending, dispatcher: Arc::downgrade(dispatcher) }))
    }
}

impl fmt::Debug for VulkanQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VulkanQueue({:?})", self.id.kind)
    }
}
