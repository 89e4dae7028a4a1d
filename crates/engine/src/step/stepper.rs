use crate::error::EngineError;
use crate::kv::mover::Mover;
use crate::masks::board::{Board, Order};
use crate::metrics::GrammarMetrics;
use crate::schedule::plan::{Part, Plan, Results, StepLimits};
use crate::step::failure::{Failure, Refusal};
use crate::step::hidden::HiddenReader;
use crate::step::history::History;
use crate::step::inputs::{Bounds, StepInputs, pack};
use crate::step::logprobs::LogitReader;
use mlx_serving_device::ops::{Copy, Sample, SampleParams};
use mlx_serving_device::{Buffer, Device, DeviceError, Op, Point, Result, Status, Storage};
use mlx_serving_metal_layer::{Allocation, InFlight, LayerStats, MetalLayer, Transfer};
use mlx_serving_model::{BLOCK_TOKENS, KvCache, Model, Scratch, Step};
use std::sync::Arc;
use std::time::Duration;

/// Encodes steps, submits them, and reads what they sampled.
pub(crate) struct Stepper {
    model: Model,
    cache: KvCache,
    scratch: Scratch,
    bounds: Bounds,
    /// The device's own copy of a step's inputs, where it would read the host's over a bus. Steps run in order: one is enough.
    inputs: Option<Allocation>,
    history: History,
    logits: LogitReader,
    hidden: HiddenReader,
    masks: MaskPoints,
    /// Mover of blocks, where there is a store to spill them to.
    mover: Option<Mover>,
    /// Last, because its allocator says at its end what the others have not released.
    layer: MetalLayer,
}

/// A step in flight, with its plan.
pub(crate) struct Flight {
    pub plan: Plan,
    pub step: Submitted,
}

/// A submitted step.
pub(crate) struct Submitted {
    number: u64,
    in_flight: InFlight,
    /// u32 [samples], for the next step.
    sampled: Buffer,
    /// The sampled tokens where the host reads them.
    readable: Buffer,
    /// Rows of logits without a mask.
    free: usize,
    /// Masks of the others.
    masks: Option<Arc<Board>>,
}

impl Submitted {
    /// Settles all its masks: its results are not wanted, and it must not wait for any that is not made.
    pub(crate) fn abandon_masks(&self) {
        self.masks.iter().for_each(|masks| masks.abandon());
    }
}

/// The points that masked rows wait for: a timeline for each slot, because the masks of a later step may be there first.
struct MaskPoints {
    device: Arc<dyn Device>,
    timelines: Vec<Point>,
    limit: Duration,
    metrics: GrammarMetrics,
}

impl MaskPoints {
    /// The next point of a slot.
    fn next(&mut self, slot: usize) -> Result<Point> {
        while self.timelines.len() <= slot {
            self.timelines.push(Point { timeline: self.device.new_timeline()?, value: 0 });
        }
        let point = &mut self.timelines[slot];
        point.value += 1;
        Ok(point.clone())
    }
}

/// Sizes for which a stepper reserves memory.
pub(crate) struct Sizes {
    pub limits: StepLimits,
    pub max_context: usize,
    /// KV blocks.
    pub blocks: usize,
}

impl Stepper {
    /// `masks`: how long a step is held up for masks that are late, and where that is counted.
    pub(crate) fn new(
        device: &Arc<dyn Device>,
        mut layer: MetalLayer,
        model: Model,
        sizes: Sizes,
        masks: (Duration, GrammarMetrics),
    ) -> Result<Self> {
        let Sizes { limits, max_context, blocks } = sizes;
        let bounds = Bounds {
            rows: limits.rows,
            sequences: limits.sequences,
            blocks_per_sequence: max_context.div_ceil(BLOCK_TOKENS),
            mask_words: Sample::mask_words(model.vocab()),
        };
        let cache = KvCache::new(model.blueprint(), device.as_ref(), layer.allocate.as_ref(), blocks)?;
        let allocate = layer.allocate.as_ref();
        let scratch = Scratch::new(model.blueprint(), device.as_ref(), allocate, limits.rows, limits.sequences)?;
        let inputs = match device.info().unified_memory {
            true => None,
            false => Some(allocate.allocate(bounds.bytes(), Storage::Private, "step inputs")?),
        };
        layer.submit.reserve_inputs(bounds.bytes())?;
        Ok(Self {
            layer,
            history: History::new(limits.sequences, model.vocab()),
            logits: LogitReader::new(model.vocab()),
            hidden: HiddenReader::new(limits.rows, model.blueprint().hidden),
            model,
            cache,
            scratch,
            bounds,
            inputs,
            masks: MaskPoints { device: device.clone(), timelines: Vec::new(), limit: masks.0, metrics: masks.1 },
            mover: None,
        })
    }

    /// Blocks move from now on.
    pub(crate) fn move_blocks(&mut self, mover: Option<Mover>) {
        self.mover = mover;
    }

    pub(crate) fn transfer(&self) -> Arc<dyn Transfer> {
        self.layer.transfer.clone()
    }

    pub(crate) fn kv_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    pub(crate) fn depth(&self) -> usize {
        self.layer.submit.depth()
    }

    /// True once all weights have arrived; the reason if they never will.
    pub(crate) fn resident(&self) -> std::result::Result<bool, String> {
        self.model.resident().map_err(|e| e.to_string())
    }

    pub(crate) fn stats(&self) -> LayerStats {
        self.layer.stats()
    }

    pub(crate) fn note_discarded(&mut self, rows: u64) {
        self.layer.submit.note_discarded(rows);
    }

    /// Encodes and submits a step. `previous` is the step before it, if it is still in flight. Returned beside it are the orders for its
    /// masks, one for each masked part of the plan; the step waits until all are settled.
    pub(crate) fn submit(
        &mut self,
        plan: &Plan,
        previous: Option<&Submitted>,
    ) -> Result<(Submitted, Vec<Order>), Refusal> {
        let mut slot = self.layer.submit.acquire()?;
        let device = self.inputs.as_ref().map_or(&slot.inputs, |own| own);
        let (inputs, bytes) = pack(&slot.inputs, device, plan)?;
        let (sampled, readable) = (self.bounds.sampled(device)?, self.bounds.sampled(&slot.inputs)?);
        let encoder = slot.encoder.as_mut();
        if let Some(own) = &self.inputs {
            encoder.record(Op::Copy(Copy { from: slot.inputs.slice(0..bytes)?, to: own.slice(0..bytes)? }))?;
        }
        if let Some(mover) = &mut self.mover {
            mover.begin(plan.step, &plan.moves, &self.cache, encoder)?;
        }
        let allocate = self.layer.allocate.as_ref();
        let observed = self.history.observe(encoder, plan, allocate)?;
        self.hidden.reserve(plan, allocate)?;
        let StepInputs { sequences, params, biases } = inputs;
        let logit_count = plan.batch.logit_rows.len();
        let free = logit_count - plan.masks;
        let sampled_before = previous.filter(|_| plan.continues).map(|p| p.sampled.clone());
        let step = Step { sampled: sampled_before, ..sequences.step(&plan.batch) };
        let rope = self.model.forward(encoder, &step, &self.cache, &self.scratch, allocate)?;
        let sample = Sample {
            logits: self.scratch.logits.clone(),
            vocab: self.model.vocab(),
            rows: free,
            params,
            biases,
            history: self.history.buffer(),
            masks: None,
            out: sampled.clone(),
        };
        if free > 0 {
            encoder.record(Op::Sample(sample.clone()))?;
        }
        let mut masked = None;
        if plan.masks > 0 {
            let (masks, point) = (self.bounds.masks(&slot.inputs)?, self.masks.next(slot.index)?);
            encoder.wait(point.clone())?;
            encoder.record(Op::Sample(Sample { masks: Some(masks.clone()), ..rest(sample, free, plan.masks)? }))?;
            masked = Some((masks, point));
        }
        if logit_count > 0 && self.inputs.is_some() {
            encoder.record(Op::Copy(Copy { from: sampled.clone(), to: readable.clone() }))?;
        }
        if plan.reads_logits() {
            self.scratch.make_readable(encoder, logit_count)?;
        }
        self.hidden.copy(encoder, plan, &self.scratch)?;
        let in_flight = self.layer.submit.submit(slot, &[])?;
        // Submitted: whoever reuses these ranges waits for the step.
        drop((observed, rope));
        let board = masked.map(|(masks, point)| Board::new(masks, self.bounds.mask_words, plan.masks, point));
        let (masks, orders) = board.map_or((None, Vec::new()), |(board, orders)| (Some(board), orders));
        Ok((Submitted { number: plan.step, in_flight, sampled, readable, free, masks }, orders))
    }

    /// Waits for a step; the tokens that it sampled, each at its place.
    pub(crate) fn complete(&mut self, step: &Submitted, limit: Duration) -> Result<Vec<u32>, Failure> {
        if let Some(masks) = &step.masks {
            let ended = || step.in_flight.submission.status() != Status::Pending;
            let late = masks.wait(self.masks.limit, ended);
            self.masks.metrics.late.inc_by(late as u64);
        }
        // While weights arrive one after the other, the step has not begun to be late.
        let resident = self.model.wait_resident(limit).map_err(|e| DeviceError::CommandFailed(e.to_string()));
        self.layer.submit.complete(&step.in_flight, limit)?;
        resident?;
        self.settle(step.number, limit).map_err(|error| Failure { error, spill: true })?;
        let mut tokens = vec![0u32; self.bounds.sequences];
        // Those of masked rows are at the end.
        let read = if step.masks.is_some() { tokens.len() } else { step.free };
        step.readable.read(0, &mut tokens[..read])?;
        Ok(tokens)
    }

    /// Waits for the blocks that are restored for steps that are never completed: those that failed, or were never submitted.
    pub(crate) fn settle_all(&mut self, limit: Duration) {
        // The mover has told of what went wrong, and whoever needs these blocks computes them.
        let _ = self.settle(u64::MAX, limit);
    }

    /// Gives blocks back to the pool that no copy can write any more.
    pub(crate) fn end_quarantine(&mut self) {
        self.mover.iter_mut().for_each(Mover::end_quarantine);
    }

    /// A sequence's results of the last completed step, which sampled these tokens.
    pub(crate) fn results(&mut self, plan: &Plan, part: &Part, tokens: &[u32]) -> Result<Results, EngineError> {
        let masked = part.mask.and(part.sample).map(|place| tokens[place as usize]);
        if masked == Some(u32::MAX) {
            let why = "none of the tokens that the request's grammar allows next has a finite logit; the model's weights may be damaged";
            return Err(EngineError::Device(why.into()));
        }
        if part.places().any(|place| tokens[place as usize] == u32::MAX) {
            let why = "the model's logits hold no finite value; its weights may be damaged";
            return Err(EngineError::Device(why.into()));
        }
        let hidden = part.hidden.clone().map(|rows| self.hidden.read(rows)).transpose()?.map(|mut rows| {
            self.model.finish_hidden(&mut rows);
            rows
        });
        let mut logprobs = |row, token, top| self.logits.read(&self.scratch, row, token, top);
        let scored = part.scores.clone().zip(&part.scored);
        let scores = scored.map(|(row, &token)| logprobs(row, token, part.scored_top)).collect::<Result<_>>()?;
        let (Some(place), Some(row)) = (part.sample, plan.logit_row(part)) else {
            return Ok(Results { scores, sampled: None, hidden });
        };
        let token = tokens[place as usize];
        let logprobs = part.sampled_top.map(|top| logprobs(row, token, top)).transpose()?;
        Ok(Results { scores, sampled: Some((token, logprobs)), hidden })
    }

    fn settle(&mut self, step: u64, limit: Duration) -> Result<()> {
        self.mover.as_mut().map_or(Ok(()), |mover| mover.settle(step, limit))
    }
}

/// Sampling of the rows behind the first `free` ones, whose tokens go to the last places.
fn rest(of: Sample, free: usize, rows: usize) -> Result<Sample> {
    let places = of.out.len() / 4;
    let from = |buffer: &Buffer, bytes: usize| buffer.slice(bytes as u64..buffer.len());
    Ok(Sample {
        logits: from(&of.logits, 4 * free * of.vocab)?,
        rows,
        params: from(&of.params, free * size_of::<SampleParams>())?,
        out: from(&of.out, 4 * (places as usize - rows))?,
        ..of
    })
}
