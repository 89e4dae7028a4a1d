use crate::ops::{Lowering, Step};
use mlx_serving_device::{CommandBuffer, DeviceError, Encoder, Op, Point, Result};
use std::any::Any;
use std::sync::Arc;

/// Queue of a device that something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Compute,
    Transfer,
}

/// Ops with what must have happened before the first of them.
#[derive(Default)]
pub(crate) struct Segment {
    pub(crate) waits: Vec<Point>,
    pub(crate) steps: Vec<Step>,
}

/// Records: every op is checked and resolved to addresses and shares of work at once, so that running it decides nothing.
pub(crate) struct CpuEncoder {
    kind: Kind,
    lowering: Arc<Lowering>,
    segments: Vec<Segment>,
}

impl CpuEncoder {
    pub(crate) fn new(kind: Kind, lowering: Arc<Lowering>) -> Self {
        Self { kind, lowering, segments: vec![Segment::default()] }
    }

    fn last(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("an encoder begins with one segment and never drops any")
    }
}

impl Encoder for CpuEncoder {
    fn record(&mut self, op: Op) -> Result<()> {
        if self.kind == Kind::Transfer && !matches!(op, Op::Copy(_)) {
            return Err(DeviceError::Contract(format!("the transfer queue runs copies only, not {op:?}")));
        }
        op.validate()?;
        let step = self.lowering.step(op)?;
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
        Ok(Box::new(CpuCommands { kind: self.kind, segments: self.segments }))
    }
}

/// A recorded command buffer.
pub(crate) struct CpuCommands {
    pub(crate) kind: Kind,
    pub(crate) segments: Vec<Segment>,
}

impl CommandBuffer for CpuCommands {
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
