use super::bundle::{Bundles, Label, Lease, Tape};
use super::commands;
use super::touch::Touch;
use crate::find::Gpu;
use crate::heap::VulkanMemory;
use crate::pipelines::Pipelines;
use ash::vk;
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Buffer, CommandBuffer, DeviceError, Encoder, Memory, Op, Point, QueueId, QueueKind, Result};
use mlx_serving_kernels::{Access, Hazards, Launch, Lowering, Scratch, Use, fault};
use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

/// Parts of a device that all its encoders use.
pub(crate) struct Recorder {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) lowering: Lowering,
    pub(crate) pipelines: Arc<Pipelines>,
    pub(crate) scratch: Scratch,
    pub(crate) bundles: [Arc<Bundles>; 2],
    /// Multiply-adds of a submission's first piece and of the others, at most.
    pub(crate) piece_work: [u64; 2],
    /// True if every launch is a piece of its own, so that each has its times.
    pub(crate) profile: bool,
}

impl Recorder {
    /// Bytes at whose multiples storage buffers are bound.
    fn align(&self) -> u64 {
        self.gpu.survey.limits.min_storage_buffer_offset_alignment.max(4)
    }

    /// Bytes of one binding at most.
    fn max_binding(&self) -> u64 {
        self.gpu.survey.limits.max_storage_buffer_range.into()
    }
}

/// The memory that a submission uses.
pub(crate) type Held = HashMap<vk::Buffer, Arc<dyn Memory>>;

/// Work that is handed to the driver as one piece, after its points are reached.
pub(crate) struct Recorded {
    pub(crate) waits: Vec<Point>,
    pub(crate) tape: Option<Tape>,
}

/// Records straight into Vulkan's command buffers: one for each piece of work.
pub(crate) struct VulkanEncoder {
    queue: QueueId,
    recorder: Arc<Recorder>,
    lease: Lease,
    held: Held,
    pieces: Vec<Recorded>,
    /// Points that the next piece waits for.
    waits: Vec<Point>,
    open: Option<Tape>,
    hazards: Hazards,
    bound: vk::Pipeline,
    work: u64,
    ops: u32,
    launched: bool,
    /// An error after which not every op is recorded, or half of one is.
    broken: Option<DeviceError>,
}

impl VulkanEncoder {
    pub(crate) fn new(queue: QueueId, recorder: &Arc<Recorder>) -> Result<Self> {
        recorder.gpu.alive()?;
        let lease = recorder.bundles[queue.kind as usize].take()?;
        Ok(Self {
            queue,
            recorder: recorder.clone(),
            lease,
            held: Held::new(),
            pieces: Vec::new(),
            waits: Vec::new(),
            open: None,
            hazards: Hazards::default(),
            bound: vk::Pipeline::null(),
            work: 0,
            ops: 0,
            launched: false,
            broken: None,
        })
    }

    /// The command buffer that is being recorded; begins one if there is none.
    fn tape(&mut self) -> Result<Tape> {
        if let Some(tape) = self.open {
            return Ok(tape);
        }
        let (first, tape) = (self.is_first(), self.lease.begin()?);
        let gpu = &self.recorder.gpu;
        commands::timestamp(gpu, &tape, 0);
        if first && self.queue.kind == QueueKind::Compute {
            commands::clear_fault(gpu, &tape, &self.lease.fault);
        }
        commands::barrier(gpu, &tape);
        self.hazards.clear();
        (self.bound, self.work) = (vk::Pipeline::null(), 0);
        Ok(*self.open.insert(tape))
    }

    fn is_first(&self) -> bool {
        self.pieces.iter().all(|piece| piece.tape.is_none())
    }

    /// Ends the piece: what follows is handed over after it.
    fn cut(&mut self) -> Result<()> {
        let tape = self.open.take();
        if let Some(tape) = tape {
            commands::end(&self.recorder.gpu, &tape).inspect_err(|error| self.broken = Some(error.clone()))?;
        }
        self.pieces.push(Recorded { waits: std::mem::take(&mut self.waits), tape });
        Ok(())
    }

    /// Checks that the memory is this device's, and keeps it until the submission has ended.
    fn hold(&mut self, buffer: &Buffer) -> Result<vk::Buffer> {
        let raw = VulkanMemory::of(buffer, &self.recorder.gpu)?.raw;
        self.held.entry(raw).or_insert_with(|| buffer.memory().clone());
        Ok(raw)
    }

    fn compute(&mut self, op: &Op) -> Result<()> {
        let recorder = self.recorder.clone();
        let mut launches = Vec::new();
        for op in pieces_of(op, recorder.max_binding() - recorder.align())? {
            launches.extend(recorder.scratch.for_op(|room| recorder.lowering.lower(&op, room))?);
        }
        let pipelines = launches.iter().map(|l| recorder.pipelines.get(l.kernel)).collect::<Result<Vec<_>>>()?;
        for (launch, pipeline) in launches.iter().zip(pipelines) {
            self.launch(launch, pipeline).inspect_err(|error| self.broken = Some(error.clone()))?;
        }
        Ok(())
    }

    fn launch(&mut self, launch: &Launch, pipeline: vk::Pipeline) -> Result<()> {
        let (groups, most) = (launch.groups, self.recorder.gpu.survey.limits.max_compute_work_group_count);
        if groups.iter().zip(most).any(|(groups, most)| *groups > most) {
            let name = launch.kernel.name;
            return Err(DeviceError::Unsupported(format!("{name} in {groups:?} workgroups, {most:?} are the most")));
        }
        let most = self.recorder.piece_work[usize::from(!self.is_first())];
        let full = self.work > 0 && self.work.saturating_add(launch.work) > most;
        if self.open.is_some() && (full || self.recorder.profile) {
            self.cut()?;
        }
        let (tape, bindings) = (self.tape()?, self.bindings(launch)?);
        if self.hazards.admit(bindings.iter().map(Use::from)) {
            commands::barrier(&self.recorder.gpu, &tape);
        }
        let layout = self.recorder.pipelines.layout(launch.kernel);
        let set = self.lease.set(layout.set)?;
        let gpu = &self.recorder.gpu;
        if self.bound != pipeline {
            commands::bind(gpu, &tape, pipeline);
            self.bound = pipeline;
        }
        commands::fill_set(gpu, set, &bindings);
        let immediates = launch.immediates(self.recorder.align(), self.ops);
        commands::dispatch(gpu, &tape, layout.pipeline, set, &immediates, launch.groups);
        self.work = self.work.saturating_add(launch.work);
        self.launched = true;
        if self.recorder.profile {
            self.open = Some(Tape { label: Some(Label::of(launch)), ..tape });
        }
        Ok(())
    }

    /// The range of each binding, the fault words' last.
    fn bindings(&mut self, launch: &Launch) -> Result<Vec<Touch>> {
        let (align, most) = (self.recorder.align(), self.recorder.max_binding());
        let access = launch.kernel.bindings;
        let mut bindings = Vec::with_capacity(access.len());
        for (buffer, access) in launch.bindings.iter().zip(access) {
            let (buffer, (start, len)) = (self.hold(buffer)?, Launch::bound(buffer, align));
            if len > most {
                let name = launch.kernel.name;
                return Err(DeviceError::Unsupported(format!("{name} on {len} bytes, bindings have {most} at most")));
            }
            bindings.push(Touch { buffer, start, end: start + len, access: *access });
        }
        let fault = &self.lease.fault;
        let access = access.last().copied().unwrap_or(Access::Read);
        bindings.push(Touch { buffer: fault.words.raw, start: fault.offset, end: fault.offset + fault::BYTES, access });
        Ok(bindings)
    }

    fn transfer(&mut self, copy: &Copy) -> Result<()> {
        let touch = |buffer: &Buffer, raw, access| {
            let (start, end) = (buffer.offset(), buffer.offset() + buffer.len());
            Touch { buffer: raw, start, end, access }
        };
        let from = self.hold(&copy.from)?;
        let to = self.hold(&copy.to)?;
        if copy.to.is_empty() {
            return Ok(());
        }
        let tape = self.tape()?;
        let touches = [touch(&copy.from, from, Access::Read), touch(&copy.to, to, Access::Write)];
        if self.hazards.admit(touches.iter().map(Use::from)) {
            commands::barrier(&self.recorder.gpu, &tape);
        }
        commands::copy(&self.recorder.gpu, &tape, (from, copy.from.offset()), (to, copy.to.offset()), copy.to.len());
        Ok(())
    }

    fn try_record(&mut self, op: &Op) -> Result<()> {
        op.buffers().into_iter().try_for_each(|buffer| self.hold(buffer).map(drop))?;
        match (self.queue.kind, op) {
            (QueueKind::Transfer, Op::Copy(copy)) => self.transfer(copy)?,
            (_, op) => self.compute(op)?,
        }
        self.ops += 1;
        Ok(())
    }

    /// Writes the end of the last piece: what the host may read.
    fn tail(&mut self) -> Result<()> {
        if self.open.is_none() && self.is_first() {
            return Ok(());
        }
        if self.open.is_some() && self.recorder.profile {
            self.cut()?;
        }
        let tape = self.tape()?;
        let gpu = &self.recorder.gpu;
        if self.launched {
            commands::barrier(gpu, &tape);
            commands::read_fault(gpu, &tape, &self.lease.fault);
        }
        commands::host_barrier(gpu, &tape);
        Ok(())
    }
}

impl Encoder for VulkanEncoder {
    fn record(&mut self, op: Op) -> Result<()> {
        op.validate()?;
        self.queue.kind.admit(&op)?;
        self.try_record(&op)
    }

    fn wait(&mut self, point: Point) -> Result<()> {
        if self.open.is_some() {
            self.cut()?;
        }
        self.waits.push(point);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Box<dyn CommandBuffer>> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        self.tail()?;
        if self.open.is_some() || !self.waits.is_empty() || self.pieces.is_empty() {
            self.cut()?;
        }
        Ok(Box::new(VulkanCommands {
            queue: self.queue,
            recorder: self.recorder,
            lease: self.lease,
            held: self.held,
            pieces: self.pieces,
            launched: self.launched,
        }))
    }
}

/// A recorded command buffer.
pub(crate) struct VulkanCommands {
    pub(crate) queue: QueueId,
    /// Keeps the pipelines.
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) lease: Lease,
    pub(crate) held: Held,
    pub(crate) pieces: Vec<Recorded>,
    /// True if kernels were launched: there are fault words to read.
    pub(crate) launched: bool,
}

impl CommandBuffer for VulkanCommands {
    fn queue(&self) -> QueueId {
        self.queue
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// Copies in pieces that a binding holds; any other op as it is.
fn pieces_of(op: &Op, most: u64) -> Result<Vec<Op>> {
    let Op::Copy(copy) = op else { return Ok(vec![op.clone()]) };
    let (len, piece) = (copy.to.len(), most / 256 * 256);
    let starts = (0..len.div_ceil(piece)).map(|i| i * piece);
    starts
        .map(|start| {
            let range = start..len.min(start + piece);
            Ok(Op::Copy(Copy { from: copy.from.slice(range.clone())?, to: copy.to.slice(range)? }))
        })
        .collect()
}
