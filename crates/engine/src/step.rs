use crate::Logprobs;
use crate::block_pool::Moves;
use crate::client::Client;
use crate::logprobs::log_softmax;
use crate::scheduler::{Limits, Plan, Scheduler};
use crate::spill::SpillStore;
use crate::uniforms::{self, Bounds, StepInputs};
use mlx_serving_device::ops::{Copy, LogitBias, NO_HISTORY_ROW, Observe, Sample, SampleParams};
use mlx_serving_device::{Buffer, Device, DeviceError, Encoder, Op, Result, Status, Storage};
use mlx_serving_metal_layer::{Allocation, InFlight, LayerStats, MetalLayer, Ticket};
use mlx_serving_model::{KvCache, Model, Scratch, Step};
use std::sync::Arc;
use std::time::Duration;

/// Encodes steps, submits them, and reads what they sampled.
pub(crate) struct Stepper {
    model: Model,
    cache: KvCache,
    scratch: Scratch,
    bounds: Bounds,
    /// The device's own copy of a step's uniforms, where it would read the host's over a bus. Steps run in order: one is enough.
    uniforms: Option<Allocation>,
    /// Token counts of the sequences that penalize, allocated when the first of them comes.
    history: Option<Allocation>,
    free_slots: Vec<u32>,
    /// Store for evicted blocks.
    spill: Option<Arc<SpillStore>>,
    /// Copies of blocks that the next step comes after, whatever became of the step that they were made for.
    moving: Vec<Ticket>,
    /// Blocks of failed steps that a copy which took too long may still write.
    quarantined: Vec<Quarantined>,
    /// A row of logits, for [`Self::logprobs`].
    row: Vec<f32>,
    /// Last, because its allocator says at its end what the others have not released.
    layer: MetalLayer,
}

/// An abandoned copy, and the blocks that it may still write.
pub(crate) type Quarantined = (Ticket, Vec<u32>);

/// Failure to submit a step.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub error: DeviceError,
    /// The sequence that alone asked for what was refused.
    pub sequence: Option<u64>,
}

impl From<DeviceError> for Refusal {
    fn from(error: DeviceError) -> Self {
        Self { error, sequence: None }
    }
}

/// Failure of a submitted step, which then has no tokens.
#[derive(Debug)]
pub(crate) struct Failure {
    pub error: DeviceError,
    /// Spilled blocks could not be restored for it.
    pub spill: bool,
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Self { error, spill: false }
    }
}

/// A submitted step.
pub(crate) struct Submitted {
    /// Blocks that are restored for it.
    restored: Vec<(Ticket, Vec<u32>)>,
    in_flight: InFlight,
    /// u32 [samples], for the next step.
    sampled: Buffer,
    /// The same for the host.
    readable: Buffer,
    samples: usize,
}

impl Stepper {
    pub(crate) fn new(
        device: &Arc<dyn Device>,
        mut layer: MetalLayer,
        model: Model,
        limits: Limits,
        max_context: usize,
        blocks: usize,
    ) -> Result<Self> {
        let bounds = Bounds {
            rows: limits.rows,
            sequences: limits.sequences,
            blocks_per_sequence: max_context.div_ceil(crate::block_pool::BLOCK_TOKENS),
        };
        let cache = KvCache::new(&model, device.as_ref(), layer.allocate.as_ref(), blocks)?;
        let allocate = layer.allocate.as_ref();
        let scratch = Scratch::new(&model, device.as_ref(), allocate, limits.rows, limits.sequences)?;
        let uniforms = match device.info().unified_memory {
            true => None,
            false => Some(allocate.allocate(bounds.bytes(), Storage::Private, "uniforms")?),
        };
        layer.submit.reserve_inputs(bounds.bytes())?;
        let free_slots = (0..limits.sequences as u32).rev().collect();
        Ok(Self {
            layer,
            row: vec![0.0; model.vocab()],
            model,
            cache,
            scratch,
            bounds,
            uniforms,
            history: None,
            free_slots,
            spill: None,
            moving: Vec::new(),
            quarantined: Vec::new(),
        })
    }

    pub(crate) fn kv_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Evicted blocks go to `store` from now on.
    pub(crate) fn spill_to(&mut self, store: Option<Arc<SpillStore>>) {
        self.spill = store;
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

    pub(crate) fn note_discarded(&mut self, steps: u64) {
        self.layer.submit.note_discarded(steps);
    }

    pub(crate) fn release_slot(&mut self, slot: Option<u32>) {
        self.free_slots.extend(slot);
    }

    /// Encodes and submits a step. `previous` is the step before it, if it is still in flight.
    pub(crate) fn submit(
        &mut self,
        plan: &Plan,
        scheduler: &mut Scheduler<Client>,
        previous: Option<&Submitted>,
    ) -> Result<Submitted, Refusal> {
        let (params, biases) = self.sampling(plan, scheduler)?;
        let mut slot = self.layer.submit.acquire()?;
        let device = self.uniforms.as_ref().map_or(&slot.inputs, |own| own);
        let (inputs, bytes) = uniforms::pack(&slot.inputs, device, plan, &params, &biases)?;
        let (sampled, readable) = (self.bounds.sampled(device)?, self.bounds.sampled(&slot.inputs)?);
        let encoder = slot.encoder.as_mut();
        if let Some(own) = &self.uniforms {
            encoder.record(Op::Copy(Copy { from: slot.inputs.slice(0..bytes)?, to: own.slice(0..bytes)? }))?;
        }
        let restored = self.move_blocks(scheduler.pool.take_moves())?;
        self.moving.iter().try_for_each(|ticket| ticket.order(encoder))?;
        let observed = self.observe(encoder, plan, scheduler)?;
        let StepInputs { batch, tokens, logit_rows, params, biases } = inputs;
        let logit_count = plan.logit_rows.len();
        let previous = previous.filter(|_| plan.continues).map(|p| p.sampled.clone());
        let step = Step {
            batch,
            tokens,
            sampled: previous,
            logit_rows,
            logit_count,
            spans: &plan.spans,
            prompts: &plan.prompts,
        };
        let allocate = self.layer.allocate.as_ref();
        let rope = self.model.forward(encoder, &step, &self.cache, &self.scratch, allocate)?;
        if logit_count > 0 {
            encoder.record(Op::Sample(Sample {
                logits: self.scratch.logits.clone(),
                vocab: self.model.vocab(),
                rows: logit_count,
                params,
                biases,
                history: self.history.as_ref().map(|h| (**h).clone()),
                out: sampled.clone(),
            }))?;
            if self.uniforms.is_some() {
                let bytes = 0..4 * logit_count as u64;
                encoder.record(Op::Copy(Copy { from: sampled.slice(bytes.clone())?, to: readable.slice(bytes)? }))?;
            }
            let mut wanted = |id| scheduler.get(id).is_some_and(|s| s.rest.request.logprobs.is_some());
            if plan.parts.iter().any(|part| !part.scores.is_empty() || part.sample.is_some() && wanted(part.id)) {
                self.scratch.make_readable(encoder, logit_count)?;
            }
        }
        let in_flight = self.layer.submit.submit(slot, &[])?;
        // Submitted: whoever reuses these ranges waits for the step.
        drop((observed, rope));
        Ok(Submitted { restored, in_flight, sampled, readable, samples: logit_count })
    }

    /// Waits for a step; the tokens that it sampled.
    pub(crate) fn complete(&mut self, step: &Submitted, limit: Duration) -> Result<Vec<u32>, Failure> {
        // While weights arrive one after the other, the step has not begun to be late.
        let resident = self.model.wait_resident(limit).map_err(|e| DeviceError::CommandFailed(e.to_string()));
        self.layer.submit.complete(&step.in_flight, limit)?;
        resident?;
        let mut restored = Ok(());
        for (ticket, blocks) in &step.restored {
            // A transfer that is late is no sign of a device that hangs: the step has completed.
            let ended = ticket.wait(limit).map_err(|error| match error {
                DeviceError::Timeout { .. } => DeviceError::CommandFailed(error.to_string()),
                error => error,
            });
            restored = restored.and(ended);
            if ticket.may_still_land() {
                self.quarantined.push((ticket.clone(), blocks.clone()));
            }
        }
        if let Err(error) = restored {
            self.spill.iter().for_each(|spill| spill.note_lost(&error));
            return Err(Failure { error, spill: true });
        }
        let mut tokens = vec![0u32; step.samples];
        step.readable.read(0, &mut tokens)?;
        Ok(tokens)
    }

    /// Takes the blocks of failed steps that are not to be used yet.
    pub(crate) fn take_quarantined(&mut self) -> Vec<Quarantined> {
        std::mem::take(&mut self.quarantined)
    }

    /// Begins to copy evicted blocks out and spilled ones back in. Returns the transfers that restore blocks, each with its own.
    fn move_blocks(&mut self, moves: Moves) -> Result<Vec<(Ticket, Vec<u32>)>> {
        self.moving.retain(|ticket| ticket.status() == Status::Pending);
        let Some(spill) = &self.spill else { return Ok(Vec::new()) };
        let block_bytes: u64 = self.cache.block(0)?.iter().map(Buffer::len).sum();
        let at_once = (self.layer.transfer.max_chunk() / block_bytes).max(1) as usize;
        let buffers = |ids: &mut dyn Iterator<Item = u32>| -> Result<Vec<Buffer>> {
            Ok(ids.map(|id| self.cache.block(id)).collect::<Result<Vec<_>>>()?.concat())
        };
        for chunk in moves.out.chunks(at_once) {
            let from = buffers(&mut chunk.iter().map(|(id, _)| *id))?;
            let (store, contents) = (spill.clone(), chunk.iter().map(|(_, content)| content.clone()).collect());
            let sink = move |bytes: &[u8]| {
                store.insert(contents, bytes);
                Ok(())
            };
            match self.layer.transfer.gather(&from, Box::new(sink)) {
                Ok(ticket) => self.moving.push(ticket),
                Err(error) => tracing::warn!(%error, "evicted KV blocks could not be spilled"),
            }
        }
        let mut tickets = Vec::new();
        for chunk in moves.back.chunks(at_once) {
            let to = buffers(&mut chunk.iter().map(|(id, ..)| *id))?;
            let (store, blocks) = (spill.clone(), chunk.to_vec());
            let fill = move |bytes: &mut [u8]| {
                let outs = bytes.chunks_exact_mut(block_bytes as usize);
                blocks.iter().zip(outs).try_for_each(|((_, content, spilled), out)| {
                    spilled.read(out).inspect_err(|_| store.discard(content))
                })?;
                store.note_restored(blocks.len());
                Ok(())
            };
            let ticket = self.layer.transfer.scatter(&to, Box::new(fill))?;
            self.moving.push(ticket.clone());
            tickets.push((ticket, chunk.iter().map(|(id, ..)| *id).collect()));
        }
        Ok(tickets)
    }

    /// Log-probabilities from the logits of the last completed step.
    pub(crate) fn logprobs(&mut self, row: u32, token: u32, top: usize) -> Result<Logprobs> {
        self.scratch.read_logits(row as usize, &mut self.row)?;
        Ok(log_softmax(&self.row, token, top))
    }

    /// One entry for each row of logits; gives a history row to those that penalize.
    fn sampling(
        &mut self,
        plan: &Plan,
        scheduler: &mut Scheduler<Client>,
    ) -> Result<(Vec<SampleParams>, Vec<LogitBias>), Refusal> {
        let mut params = Vec::with_capacity(plan.logit_rows.len());
        let mut biases = Vec::new();
        for (part, span) in plan.parts.iter().zip(&plan.spans) {
            params.extend(part.scores.clone().map(|_| SampleParams::GREEDY));
            if part.sample.is_none() {
                continue;
            }
            let sequence =
                scheduler.get(part.id).ok_or_else(|| DeviceError::Contract("a planned sequence is gone".into()))?;
            let client = &mut sequence.rest;
            if client.request.sampling.penalizes() && client.slot.is_none() {
                client.slot = self.free_slots.pop();
                self.reserve_history().map_err(|error| Refusal { error, sequence: Some(part.id) })?;
            }
            let s = &client.request.sampling;
            params.push(SampleParams {
                temperature: s.temperature,
                top_k: s.top_k,
                top_p: s.top_p,
                min_p: s.min_p,
                repetition: s.repetition_penalty,
                presence: s.presence_penalty,
                frequency: s.frequency_penalty,
                seed_low: client.seed as u32,
                seed_high: (client.seed >> 32) as u32,
                position: span.start + span.rows,
                history_row: client.slot.unwrap_or(NO_HISTORY_ROW),
                bias_first: biases.len() as u32,
                bias_count: s.logit_bias.len() as u32,
            });
            biases.extend(s.logit_bias.iter().map(|&(token, bias)| LogitBias { token, bias }));
        }
        Ok((params, biases))
    }

    fn reserve_history(&mut self) -> Result<()> {
        if self.history.is_none() {
            let bytes = 4 * (self.bounds.sequences * self.model.vocab()) as u64;
            self.history = Some(self.layer.allocate.allocate(bytes, Storage::Private, "history")?);
        }
        Ok(())
    }

    /// Notes the tokens so far of sequences that penalize and sample for the first time. Their tokens are all known then: they
    /// come from a prompt or from a sequence that is computed again.
    fn observe(
        &mut self,
        encoder: &mut dyn Encoder,
        plan: &Plan,
        scheduler: &mut Scheduler<Client>,
    ) -> Result<Vec<Allocation>, Refusal> {
        let mut buffers = Vec::new();
        for part in plan.parts.iter().filter(|p| p.sample.is_some()) {
            let Some(sequence) = scheduler.get(part.id) else { continue };
            let (Some(slot), false, Some(history)) = (sequence.rest.slot, sequence.rest.observed, &self.history) else {
                continue;
            };
            let tokens = &sequence.progress.tokens;
            let buffer = self
                .layer
                .allocate
                .allocate(4 * tokens.len() as u64, Storage::Shared, "prompt tokens")
                .map_err(|error| Refusal { error, sequence: Some(part.id) })?;
            buffer.write(0, tokens)?;
            encoder.record(Op::Observe(Observe {
                history: (**history).clone(),
                vocab: self.model.vocab(),
                history_row: slot as usize,
                tokens: (*buffer).clone(),
                count: tokens.len(),
                prompt: sequence.progress.prompt,
            }))?;
            sequence.rest.observed = true;
            buffers.push(buffer);
        }
        Ok(buffers)
    }
}
