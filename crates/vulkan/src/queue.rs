use crate::queue_kind::QueueKind;
use crate::record::{Recorder, VulkanCommands, VulkanEncoder};
use crate::run::{Executor, Mark, VulkanSubmission, VulkanTimeline};
use mlx_serving_device::{CommandBuffer, DeviceError, Encoder, Point, Queue, Result, Submission};
use std::fmt;
use std::sync::Arc;

/// One of the two queues.
pub(crate) struct VulkanQueue {
    pub(crate) kind: QueueKind,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) executor: Arc<Executor>,
}

impl VulkanQueue {
    /// The mark of a point of this device.
    fn mark(&self, point: &Point) -> Result<Mark> {
        let timeline = point.timeline.as_any().downcast_ref::<VulkanTimeline>();
        let own =
            timeline.filter(|timeline| std::ptr::eq(timeline.executor.as_ptr(), Arc::as_ptr(&self.executor.shared)));
        let own = own.ok_or_else(|| DeviceError::Contract(format!("{point:?} belongs to another device")))?;
        Ok(Mark { counter: own.counter.clone(), value: point.value })
    }
}

impl Queue for VulkanQueue {
    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(VulkanEncoder::new(self.kind, &self.recorder)?))
    }

    fn submit(
        &self,
        commands: Box<dyn CommandBuffer>,
        waits: &[Point],
        signal: Option<Point>,
    ) -> Result<Arc<dyn Submission>> {
        let commands = commands.into_any().downcast::<VulkanCommands>().ok();
        let commands = commands.filter(|commands| Arc::ptr_eq(&commands.recorder, &self.recorder));
        let mut commands =
            *commands.ok_or_else(|| DeviceError::Contract("a command buffer of another device".into()))?;
        if commands.queue != self.kind {
            return Err(DeviceError::Contract(format!("a command buffer for {:?} on {:?}", commands.queue, self.kind)));
        }
        let marks = |points: &[Point]| points.iter().map(|point| self.mark(point)).collect::<Result<Vec<_>>>();
        let (waits, signal) = (marks(waits)?, signal.map(|point| self.mark(&point)).transpose()?);
        let pieces = std::mem::take(&mut commands.pieces).into_iter();
        let pieces = pieces.map(|piece| Ok((marks(&piece.waits)?, piece.tape))).collect::<Result<Vec<_>>>()?;
        let shared = &self.executor.shared;
        let ending = shared.submit(commands, waits, pieces, signal)?;
        Ok(Arc::new(VulkanSubmission { ending, executor: Arc::downgrade(shared) }))
    }
}

impl fmt::Debug for VulkanQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VulkanQueue({:?})", self.kind)
    }
}
