use crate::error::EngineError;
use crate::kv::mover::Mover;
use crate::schedule::plan::{Part, Plan, Results, StepLimits};
use crate::step::failure::{Failure, Refusal};
use crate::step::history::History;
use crate::step::inputs::{Bounds, StepInputs, pack};
use crate::step::logprobs::LogitReader;
use mlx_serving_device::ops::{Copy, Sample};
use mlx_serving_device::{Buffer, Device, DeviceError, Op, Result, Storage};
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
    samples: usize,
}

impl Stepper {
    pub(crate) fn new(
        device: &Arc<dyn Device>,
        mut layer: MetalLayer,
        model: Model,
        limits: StepLimits,
        max_context: usize,
        blocks: usize,
    ) -> Result<Self> {
        let bounds = Bounds {
            rows: limits.rows,
            sequences: limits.sequences,
            blocks_per_sequence: max_context.div_ceil(BLOCK_TOKENS),
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
            model,
            cache,
            scratch,
            bounds,
            inputs,
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

    /// Encodes and submits a step. `previous` is the step before it, if it is still in flight.
    pub(crate) fn submit(&mut self, plan: &Plan, previous: Option<&Submitted>) -> Result<Submitted, Refusal> {
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
        let StepInputs { sequences, params, biases } = inputs;
        let logit_count = plan.batch.logit_rows.len();
        let sampled_before = previous.filter(|_| plan.continues).map(|p| p.sampled.clone());
        let step = Step { sampled: sampled_before, ..sequences.step(&plan.batch) };
        let rope = self.model.forward(encoder, &step, &self.cache, &self.scratch, allocate)?;
        if logit_count > 0 {
            encoder.record(Op::Sample(Sample {
                logits: self.scratch.logits.clone(),
                vocab: self.model.vocab(),
                rows: logit_count,
                params,
                biases,
                history: self.history.buffer(),
                out: sampled.clone(),
            }))?;
            if self.inputs.is_some() {
                let bytes = 0..4 * logit_count as u64;
                encoder.record(Op::Copy(Copy { from: sampled.slice(bytes.clone())?, to: readable.slice(bytes)? }))?;
            }
            if plan.reads_logits() {
                self.scratch.make_readable(encoder, logit_count)?;
            }
        }
        let in_flight = self.layer.submit.submit(slot, &[])?;
        // Submitted: whoever reuses these ranges waits for the step.
        drop((observed, rope));
        Ok(Submitted { number: plan.step, in_flight, sampled, readable, samples: logit_count })
    }

    /// Waits for a step; the tokens that it sampled.
    pub(crate) fn complete(&mut self, step: &Submitted, limit: Duration) -> Result<Vec<u32>, Failure> {
        // While weights arrive one after the other, the step has not begun to be late.
        let resident = self.model.wait_resident(limit).map_err(|e| DeviceError::CommandFailed(e.to_string()));
        self.layer.submit.complete(&step.in_flight, limit)?;
        resident?;
        self.settle(step.number, limit).map_err(|error| Failure { error, spill: true })?;
        let mut tokens = vec![0u32; step.samples];
        step.readable.read(0, &mut tokens)?;
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
    pub(crate) fn results(&mut self, part: &Part, tokens: &[u32]) -> Result<Results, EngineError> {
        if part.logit_rows().any(|row| tokens[row as usize] == u32::MAX) {
            let why = "the model's logits hold no finite value; its weights may be damaged";
            return Err(EngineError::Device(why.into()));
        }
        let mut logprobs = |row, token, top| self.logits.read(&self.scratch, row, token, top);
        let scored = part.scores.clone().zip(&part.scored);
        let scores = scored.map(|(row, &token)| logprobs(row, token, part.scored_top)).collect::<Result<_>>()?;
        let Some(row) = part.sample else { return Ok(Results { scores, sampled: None }) };
        let token = tokens[row as usize];
        let logprobs = part.sampled_top.map(|top| logprobs(row, token, top)).transpose()?;
        Ok(Results { scores, sampled: Some((token, logprobs)) })
    }

    fn settle(&mut self, step: u64, limit: Duration) -> Result<()> {
        self.mover.as_mut().map_or(Ok(()), |mover| mover.settle(step, limit))
    }
}
