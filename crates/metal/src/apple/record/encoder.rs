use crate::apple::heap::MetalMemory;
use crate::apple::objects::Object;
use crate::apple::pipelines::Pipelines;
use crate::apple::queue_kind::QueueKind;
use crate::apple::timeline::MetalPoint;
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{CommandBuffer, DeviceError, Encoder, Op, Point, Result};
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

/// One command of a command buffer.
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
    kind: QueueKind,
    recorder: Arc<Recorder>,
    steps: Vec<Step>,
    ops: u32,
}

impl MetalEncoder {
    pub(crate) fn new(kind: QueueKind, recorder: Arc<Recorder>) -> Self {
        Self { kind, recorder, steps: Vec::new(), ops: 0 }
    }
}

/// The blit engine copies whole words.
fn blits(copy: &Copy) -> bool {
    !copy.to.is_empty() && [copy.from.offset(), copy.to.offset(), copy.to.len()].iter().all(|n| n.is_multiple_of(4))
}

impl Encoder for MetalEncoder {
    fn record(&mut self, op: Op) -> Result<()> {
        op.validate()?;
        let max = self.recorder.max_buffer_len;
        for buffer in op.buffers() {
            MetalMemory::of(buffer)?;
            if buffer.len() > max {
                return Err(DeviceError::Contract(format!(
                    "an op refers to {buffer:?}; at most {max} bytes may be bound"
                )));
            }
        }
        match (self.kind, op) {
            (QueueKind::Transfer, Op::Copy(copy)) if blits(&copy) => self.steps.push(Step::Blit(copy)),
            (QueueKind::Transfer, op) if !matches!(op, Op::Copy(_)) => {
                return Err(DeviceError::Contract(format!("the transfer queue runs copies only, not {op:?}")));
            }
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
        Ok(Box::new(MetalCommands { kind: self.kind, steps: self.steps }))
    }
}

/// A recorded command buffer.
pub(crate) struct MetalCommands {
    pub(crate) kind: QueueKind,
    pub(crate) steps: Vec<Step>,
}

impl CommandBuffer for MetalCommands {
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
