use crate::ops::{Lowering, Step};
use mlx_serving_device::{CommandBuffer, Encoder, Op, Point, QueueId, Result};
use std::any::Any;
use std::sync::Arc;

/// Ops with what must have happened before the first of them.
#[derive(Default)]
pub(crate) struct Segment {
    pub(crate) waits: Vec<Point>,
    pub(crate) steps: Vec<Step>,
}

/// Records: every op is checked and resolved to addresses and shares of work at once, so that running it decides nothing.
pub(crate) struct CpuEncoder {
    queue: QueueId,
    lowering: Arc<Lowering>,
    segments: Vec<Segment>,
}

impl CpuEncoder {
    pub(crate) fn new(queue: QueueId, lowering: Arc<Lowering>) -> Self {
        Self { queue, lowering, segments: vec![Segment::default()] }
    }

    fn last(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("an encoder begins with one segment and never drops any")
    }
}

impl Encoder for CpuEncoder {
    fn record(&mut self, op: Op) -> Result<()> {
        op.validate()?;
        self.queue.kind.admit(&op)?;
        let step = Step::new(op, &self.lowering)?;
        self.last().steps.push(step);
        Ok(())
    }

    fn wait(&mut self, point: Point) -> Result<()> {
        if !self.last().steps.is_empty() {
            self.segments.push(Segment::default());
        }
        self.last().waits.push(point);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn CommandBuffer>> {
        Ok(Box::new(CpuCommands { queue: self.queue, segments: self.segments }))
    }
}

/// A recorded command buffer.
pub(crate) struct CpuCommands {
    queue: QueueId,
    pub(crate) segments: Vec<Segment>,
}

impl CommandBuffer for CpuCommands {
    fn queue(&self) -> QueueId {
        self.queue
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
