//! A model in device memory, large enough that caches do not hold it, and the ops of its steps.

use super::memory::Memory;
use super::plan::{Case, Plan};
use crate::failure::Failure;
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::ops::{Copy, Epilogue, Sample, SampleParams, Stacks};
use mlx_serving_device::{CommandBuffer, DeviceError, Encoder, Op, Point, Result, Storage};
use mlx_serving_model::inputs::{ALIGN, Packer, Sequences};
use mlx_serving_model::{KvCache, LoadInputs, Model, Scratch};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// No upload and no first step takes longer.
const LIMIT: Duration = Duration::from_secs(600);

/// An op of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MeasuredOp {
    Embed,
    RopeAngles,
    Qkv,
    QkNorm,
    Attend,
    O,
    NormBehind,
    Router,
    Route,
    ExpertGateUp,
    ExpertDown,
    GateUp,
    Down,
    LmHead,
    Sample,
}

impl MeasuredOp {
    /// All of them, in the order of a step; not every model has norms of their own, or experts.
    pub(super) const ALL: [Self; 15] = [
        Self::Embed,
        Self::RopeAngles,
        Self::Qkv,
        Self::QkNorm,
        Self::Attend,
        Self::O,
        Self::NormBehind,
        Self::Router,
        Self::Route,
        Self::ExpertGateUp,
        Self::ExpertDown,
        Self::GateUp,
        Self::Down,
        Self::LmHead,
        Self::Sample,
    ];

    /// Name for people.
    pub(super) fn label(self) -> &'static str {
        match self {
            MeasuredOp::Embed => "embed",
            MeasuredOp::RopeAngles => "rope angles",
            MeasuredOp::Qkv => "norm, q, k, v",
            MeasuredOp::QkNorm => "norm of q, k",
            MeasuredOp::Attend => "attend",
            MeasuredOp::O => "o",
            MeasuredOp::NormBehind => "norm behind",
            MeasuredOp::Router => "norm, router",
            MeasuredOp::Route => "choice of experts",
            MeasuredOp::ExpertGateUp => "norm, experts' gate, up",
            MeasuredOp::ExpertDown => "experts' down",
            MeasuredOp::GateUp => "norm, gate, up",
            MeasuredOp::Down => "down",
            MeasuredOp::LmHead => "norm, lm_head",
            MeasuredOp::Sample => "sample",
        }
    }

    /// Calls in a step of the whole model.
    pub(super) fn calls(self, plan: &Plan) -> usize {
        let layers = plan.shape.layers;
        match self {
            MeasuredOp::Qkv | MeasuredOp::Attend | MeasuredOp::O => layers,
            MeasuredOp::GateUp | MeasuredOp::Down => plan.networks,
            MeasuredOp::Router | MeasuredOp::Route | MeasuredOp::ExpertGateUp | MeasuredOp::ExpertDown => plan.experts,
            // Of queries and of keys; behind attention and behind the feed-forward network.
            MeasuredOp::QkNorm | MeasuredOp::NormBehind => 2 * layers,
            MeasuredOp::Embed | MeasuredOp::RopeAngles | MeasuredOp::LmHead | MeasuredOp::Sample => 1,
        }
    }

    /// The step's context, if that matters.
    pub(super) fn context(self, case: &Case) -> Option<usize> {
        (self == MeasuredOp::Attend).then_some(case.context)
    }

    /// Rows that it works on: what follows the layers sees only each sequence's last.
    pub(super) fn rows(self, case: &Case) -> usize {
        if matches!(self, MeasuredOp::LmHead | MeasuredOp::Sample) { case.sequences } else { case.rows }
    }

    /// The kernel of an op of a forward pass that comes after `previous`; `None` of an op that is not measured.
    fn of(op: &Op, previous: Option<Self>) -> Option<Self> {
        Some(match op {
            Op::Embed(_) => MeasuredOp::Embed,
            Op::RopeAngles(_) => MeasuredOp::RopeAngles,
            Op::Attend(_) => MeasuredOp::Attend,
            Op::Sample(_) => MeasuredOp::Sample,
            Op::Linear(linear) => match linear.epilogue {
                _ if linear.gather.is_some() => MeasuredOp::LmHead,
                Epilogue::Gated(..) => MeasuredOp::GateUp,
                // Stored where a norm is behind.
                Epilogue::Store(_) | Epilogue::Add(_) if previous == Some(MeasuredOp::Attend) => MeasuredOp::O,
                Epilogue::Store(_) | Epilogue::Add(_) if previous == Some(MeasuredOp::GateUp) => MeasuredOp::Down,
                Epilogue::Store(_) if previous == Some(MeasuredOp::O) => MeasuredOp::Router,
                Epilogue::Store(_) | Epilogue::Add(_) => MeasuredOp::Qkv,
            },
            Op::Route(_) => MeasuredOp::Route,
            Op::Experts(op) => match op.stacks {
                Stacks::Gated { .. } => MeasuredOp::ExpertGateUp,
                Stacks::Sum { .. } => MeasuredOp::ExpertDown,
            },
            Op::Normalize(op) if op.target.is_some() => MeasuredOp::NormBehind,
            Op::Normalize(_) => MeasuredOp::QkNorm,
            Op::Copy(_) | Op::Observe(_) => return None,
        })
    }
}

/// An encoder that keeps what is recorded.
#[derive(Default)]
struct Kept(Vec<Op>);

impl Encoder for Kept {
    fn record(&mut self, op: Op) -> Result<()> {
        op.validate()?;
        self.0.push(op);
        Ok(())
    }

    /// Weights are there before a step is recorded.
    fn wait(&mut self, _: Point) -> Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn CommandBuffer>> {
        Err(DeviceError::CommandFailed("ops that are kept are recorded one by one".into()))
    }
}

pub(super) struct Rig<'a> {
    plan: &'a Plan,
    model: Model,
    cache: KvCache,
    scratch: Scratch,
    /// Its memory, released after all that was allocated by it.
    memory: Memory<'a>,
}

impl<'a> Rig<'a> {
    /// Loads a random model, and allocates what else the plan needs.
    pub(super) fn new(plan: &'a Plan, memory: Memory<'a>) -> Result<Self, Failure> {
        let checkpoint = plan.checkpoint(plan.layers).map_err(Failure::failed)?;
        let (model, cache, scratch) = load(plan, checkpoint, &memory)?;
        cache.layers().try_for_each(|layer| memory.fill_cache(layer)).map_err(Failure::failed)?;
        Ok(Self { plan, model, cache, scratch, memory })
    }

    /// The ops of a case's steps, each of which has been run once, so that activations have values.
    pub(super) fn step(&self, case: &Case) -> Result<Step> {
        let blocks = case.sequences * case.blocks_each();
        // Steps take turns with the cache's blocks, as many as the layers of the whole model would take.
        let rounds = self.plan.shape.layers.div_ceil(self.plan.layers).min(self.plan.blocks / blocks).max(1);
        let mut step = Step::default();
        for round in 0..rounds {
            let (mut last, mut kept) = (None, Kept::default());
            self.record(case, round * blocks, &mut kept)?;
            if round == 0 {
                self.run(&kept.0)?;
            }
            for op in kept.0 {
                let kernel = MeasuredOp::of(&op, last);
                if let Some(kernel) = kernel {
                    step.0[kernel as usize].push(op);
                }
                last = kernel;
            }
        }
        // The first layers, of which the model may have no others here, need not be like the last.
        let whole = self.plan.layers == self.plan.shape.layers;
        let every = |kernel: &&MeasuredOp| match kernel {
            MeasuredOp::QkNorm | MeasuredOp::NormBehind => false,
            MeasuredOp::GateUp
            | MeasuredOp::Down
            | MeasuredOp::Router
            | MeasuredOp::Route
            | MeasuredOp::ExpertGateUp
            | MeasuredOp::ExpertDown => whole && kernel.calls(self.plan) > 0,
            _ => true,
        };
        match MeasuredOp::ALL.iter().filter(every).find(|&&kernel| !step.has(kernel)) {
            Some(kernel) => Err(DeviceError::CommandFailed(format!("this model has no {}", kernel.label()))),
            None => Ok(step),
        }
    }

    /// Records a step whose sequences have the KV blocks from `block` on.
    fn record(&self, case: &Case, block: usize, encoder: &mut dyn Encoder) -> Result<()> {
        let (each, blocks) = (case.rows_each(), case.blocks_each());
        let vocab = self.model.vocab();
        // Tokens from all over the vocabulary.
        let tokens: Vec<u32> = (0..case.rows).map(|row| (row * 7919 % vocab) as u32).collect();
        let logit_rows = (1..=case.sequences).map(|i| (i * each - 1) as u32).collect();
        let mut sequences = Sequences { logit_rows, ..Sequences::default() };
        for (i, tokens) in tokens.chunks(each).enumerate() {
            let first = (block + i * blocks) as u32;
            sequences.push(tokens, case.start(), case.context, first..first + blocks as u32);
        }
        let (params, no_biases, sampled) =
            (vec![SampleParams::GREEDY; case.sequences], [0u32; 2], vec![0u32; case.sequences]);
        let bytes = sequences.bytes() + size_of_val(&params[..]) as u64 + 4 * sampled.len() as u64 + 3 * ALIGN;
        let (device, unified) = (self.memory.device, self.memory.device.info().unified_memory);
        let host = device.new_buffer(bytes, Storage::Shared)?;
        let own = if unified { host.clone() } else { device.new_buffer(bytes, Storage::Private)? };
        let mut packer = Packer::new(&host, &own);
        let inputs = packer.sequences(&sequences)?;
        let (params, biases, out) = (packer.put(&params)?, packer.put(&no_biases)?, packer.put(&sampled)?);
        if !unified {
            self.run(&[Op::Copy(Copy { from: host.clone(), to: own.clone() })])?;
        }
        let step = inputs.step(&sequences);
        let allocate = self.memory.layer.allocate.as_ref();
        self.model.forward(encoder, &step, &self.cache, &self.scratch, allocate)?;
        encoder.record(Op::Sample(Sample {
            logits: self.scratch.logits.clone(),
            vocab,
            rows: case.sequences,
            params,
            biases,
            history: None,
            masks: None,
            out,
        }))
    }

    /// Runs ops and waits for their end.
    fn run(&self, ops: &[Op]) -> Result<()> {
        let queue = self.memory.device.compute_queue();
        let mut encoder = queue.encoder()?;
        ops.iter().try_for_each(|op| encoder.record(op.clone()))?;
        queue.submit(encoder.finish()?, &[], None)?.wait(LIMIT)
    }
}

fn load(plan: &Plan, checkpoint: Checkpoint, memory: &Memory<'_>) -> Result<(Model, KvCache, Scratch), Failure> {
    let (layer, device) = (&memory.layer, memory.device.as_ref());
    let model = Model::load(LoadInputs {
        checkpoint: Arc::new(checkpoint),
        device: memory.device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |_| {},
    })
    .map_err(Failure::failed)?;
    model.wait_resident(LIMIT).map_err(Failure::failed)?;
    let (spec, allocate) = (model.blueprint(), layer.allocate.as_ref());
    let cache = KvCache::new(spec, device, allocate, plan.blocks).map_err(Failure::failed)?;
    let extent = plan.extent();
    let scratch = Scratch::new(spec, device, allocate, extent.rows, extent.logit_rows).map_err(Failure::failed)?;
    Ok((model, cache, scratch))
}

/// The ops of a case's steps, by kernel.
#[derive(Default)]
pub(super) struct Step([Vec<Op>; MeasuredOp::ALL.len()]);

impl Step {
    /// True if the model has such ops.
    pub(super) fn has(&self, kernel: MeasuredOp) -> bool {
        !self.0[kernel as usize].is_empty()
    }

    /// The n-th call of a kernel: calls take the layers in turn.
    pub(super) fn op(&self, kernel: MeasuredOp, n: usize) -> Op {
        let ops = &self.0[kernel as usize];
        ops[n % ops.len()].clone()
    }
}
