use crate::apple::heap::MetalMemory;
use crate::apple::objects::Object;
use crate::apple::pipelines::Pipelines;
use crate::apple::timeline::MetalPoint;
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{CommandBuffer, Encoder, Op, Point, QueueId, QueueKind, Result};
use mlx_serving_kernels::{Launch, Lowering, Scratch};
use objc2_metal::MTLComputePipelineState;
use std::any::Any;
use std::sync::Arc;

/// Means of turning ops into steps, shared by a device's encoders.
pub(crate) struct Recorder {
    pub(crate) lowering: Lowering,
    pub(crate) pipelines: Arc<Pipelines>,
    pub(crate) scratch: Scratch,
    pub(crate) max_buffer_len: u64,
}

/// A command of a command buffer.
pub(crate) enum Step {
    /// Holds what follows until the device sees the point.
    Wait(MetalPoint),
    /// Copies by the blit engine.
    Blit(Copy),
    /// Runs a kernel.
    Launch { launch: Launch, pipeline: Object<dyn MTLComputePipelineState>, op: u32 },
}

/// Records: every op is checked and lowered at once. Metal's command buffer is written on submission, since the points that it
/// must wait for before its first command are known only then, and so that no more than Metal's limit of them exist.
pub(crate) struct MetalEncoder {
    queue: QueueId,
    recorder: Arc<Recorder>,
    steps: Vec<Step>,
    ops: u32,
}

impl MetalEncoder {
    pub(crate) fn new(queue: QueueId, recorder: Arc<Recorder>) -> Self {
        Self { queue, recorder, steps: Vec::new(), ops: 0 }
    }
}

/// The blit engine copies whole words.
fn blits(copy: &Copy) -> bool {
    !copy.to.is_empty() && [copy.from.offset(), copy.to.offset(), copy.to.len()].iter().all(|n| n.is_multiple_of(4))
}

impl Encoder for MetalEncoder {
    fn record(&mut self, op: Op) -> Result<()> {
        op.validate()?;
        self.queue.kind.admit(&op)?;
        op.check_lengths(self.recorder.max_buffer_len)?;
        op.buffers().into_iter().try_for_each(|buffer| buffer.memory_as::<MetalMemory>().map(drop))?;
        match (self.queue.kind, op) {
            (QueueKind::Transfer, Op::Copy(copy)) if blits(&copy) => self.steps.push(Step::Blit(copy)),
            (_, op) => {
                let number = self.ops;
                let Recorder { lowering, pipelines, scratch, .. } = &*self.recorder;
                let launches = scratch.for_op(|room| lowering.lower(&op, room))?;
                for launch in launches {
                    let pipeline = pipelines.get(launch.kernel)?;
                    self.steps.push(Step::Launch { launch, pipeline, op: number });
                }
            }
        }
        self.ops += 1;
        Ok(())
    }

    fn wait(&mut self, point: Point) -> Result<()> {
        self.steps.push(Step::Wait(MetalPoint::new(point)?));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn CommandBuffer>> {
        Ok(Box::new(MetalCommands { queue: self.queue, steps: self.steps }))
    }
}

/// A recorded command buffer.
pub(crate) struct MetalCommands {
    queue: QueueId,
    pub(crate) steps: Vec<Step>,
}

impl CommandBuffer for MetalCommands {
    fn queue(&self) -> QueueId {
        self.queue
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
