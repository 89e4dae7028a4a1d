use crate::block_pool::{BLOCK_TOKENS, BlockPool};
use crate::client::Client;
use crate::events::Sender;
use crate::handle::{Info, Live, Options, Shared};
use crate::scheduler::{Limits, Next, Part, Plan, Progress, Scheduled, Scheduler};
use crate::spill::SpillStore;
use crate::step::{Quarantined, Stepper, Submitted};
use crate::{EngineError, FinishReason, PromptToken, Request};
use mlx_serving_device::{Device, DeviceError};
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_model::Model;
use mlx_serving_text::{StopMatcher, Tokenizer};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Parts of an engine.
#[derive(Debug)]
pub struct Parts {
    /// The device.
    pub device: Arc<dyn Device>,
    /// Allocate, transfer, submit.
    pub layer: MetalLayer,
    /// The loaded model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
}

/// Messages of the handle to the thread.
#[derive(Debug)]
pub(crate) enum Command {
    Submit { request: Box<Request>, stops: StopMatcher, events: Sender, live: Live, arrived: Instant },
    Stop,
}

/// Interval at which an engine without requests publishes the device's utilization.
const IDLE: Duration = Duration::from_millis(250);
/// Interval at which it looks for what it waits for: weights in flight, blocks that a late copy may still write.
const ARRIVING: Duration = Duration::from_millis(10);
/// A request is computed again once after a failed step; twice is the request's or the device's fault.
const RETRIES: u32 = 1;

/// The engine's thread: plans, submits, completes, sends.
pub(crate) struct Worker {
    inbox: Receiver<Command>,
    shared: Arc<Shared>,
    scheduler: Scheduler<Client>,
    stepper: Stepper,
    flight: VecDeque<Flight>,
    tokenizer: Tokenizer,
    eos: Vec<u32>,
    max_context: usize,
    next_id: u64,
    /// Blocks may be shared between sequences.
    share: bool,
    step_limit: Duration,
    /// There is nothing to submit or to complete, though requests may wait for blocks.
    idle: bool,
    /// All weights have arrived.
    resident: bool,
    /// Blocks that the pool shall not hand out while an abandoned copy may still write them.
    quarantine: Vec<Quarantined>,
}

/// Cause of a step's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Unknown: the device, or one of its requests.
    Step,
    /// One request, which has failed with it.
    Request,
    /// Spilled blocks that could not be restored, which the store has logged.
    Spill,
}

/// A submitted step.
struct Flight {
    plan: Plan,
    step: Submitted,
}

impl Worker {
    pub(crate) fn new(
        parts: Parts,
        options: &Options,
        inbox: Receiver<Command>,
        shared: Arc<Shared>,
    ) -> Result<(Info, Self), EngineError> {
        let blocks = options.kv_tokens.div_ceil(BLOCK_TOKENS).max(2);
        let max_context = parts.model.max_context().min(blocks * BLOCK_TOKENS);
        let limits =
            Limits { rows: options.max_batch_rows.max(options.max_sequences), sequences: options.max_sequences };
        let (vocab, share) = (parts.model.vocab(), parts.model.prefixes_are_shareable());
        let mut stepper = Stepper::new(&parts.device, parts.layer, parts.model, limits, max_context, blocks)?;
        let spill = SpillStore::open(&options.spill, stepper.kv_bytes() / blocks as u64, shared.metrics.spill.clone())?;
        stepper.spill_to(spill.clone());
        shared.metrics.configure(BLOCK_TOKENS, blocks);
        let info = Info { vocab, max_context, kv_bytes: stepper.kv_bytes(), max_live: shared.max_live };
        let resident = stepper.resident().unwrap_or(false);
        shared.resident.store(resident, Ordering::Release);
        let worker = Worker {
            inbox,
            shared,
            scheduler: Scheduler::new(limits, BlockPool::new(blocks, spill)),
            stepper,
            flight: VecDeque::new(),
            tokenizer: parts.tokenizer,
            eos: parts.eos,
            max_context,
            next_id: 0,
            share,
            step_limit: options.step_limit,
            idle: true,
            resident,
            quarantine: Vec::new(),
        };
        Ok((info, worker))
    }

    /// Runs until the handle is dropped, the device is lost, or weights fail to arrive.
    pub(crate) fn run(mut self) {
        let reason = loop {
            if !self.receive() {
                break "it was shut down".to_owned();
            }
            let next = self.look_for_weights().and_then(|()| self.turn().map_err(|e| e.to_string()));
            if let Err(reason) = next {
                tracing::error!(reason, "the engine stops");
                break reason;
            }
            self.publish_gauges();
        };
        *self.shared.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
        for flight in std::mem::take(&mut self.flight) {
            // The answers are lost already; what counts is that the device is done with the buffers.
            let _ = self.stepper.complete(&flight.step, self.step_limit);
        }
        // What was sent before the reason could be seen ends as the others do.
        while let Ok(command) = self.inbox.try_recv() {
            self.accept(command);
        }
        let error = EngineError::Stopped(reason);
        let rest = self.scheduler.running.drain(..).chain(self.scheduler.waiting.drain(..));
        rest.for_each(|s| s.rest.fail(error.clone(), &self.shared.metrics));
        self.publish_gauges();
    }

    /// Takes what has arrived; waits if there is nothing else to do. False if the engine shall end.
    fn receive(&mut self) -> bool {
        loop {
            let waits = !self.resident || !self.scheduler.is_empty();
            let command = if !self.idle {
                match self.inbox.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => return false,
                }
            } else {
                match self.inbox.recv_timeout(if waits { ARRIVING } else { IDLE }) {
                    Ok(command) => command,
                    Err(RecvTimeoutError::Timeout) if waits => return true,
                    Err(RecvTimeoutError::Timeout) => {
                        // The device's utilization falls while nothing runs.
                        self.publish_stats();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return false,
                }
            };
            if !self.accept(command) {
                return false;
            }
        }
    }

    /// Queues a request. False if the engine shall end.
    fn accept(&mut self, command: Command) -> bool {
        let Command::Submit { request, stops, events, live, arrived } = command else { return false };
        let end = (request.prompt.len() + request.max_tokens.unwrap_or(usize::MAX / 2)).min(self.max_context);
        let scores = request.prompt_logprobs.is_some();
        let (client, prompt) = Client::new(*request, stops, events, live, arrived, &self.tokenizer);
        let progress = Progress::new(prompt, end);
        let progress = if scores { progress.scoring() } else { progress };
        self.next_id += 1;
        self.scheduler.waiting.push_back(Scheduled { id: self.next_id, progress, rest: client });
        self.idle = false;
        true
    }

    /// Looks whether the weights in flight have arrived. One that has failed never will, and nothing can be computed without it.
    fn look_for_weights(&mut self) -> Result<(), String> {
        if !self.resident {
            self.resident = self.stepper.resident()?;
            if self.resident {
                tracing::info!("all weights have arrived");
            }
            self.shared.resident.store(self.resident, Ordering::Release);
        }
        Ok(())
    }

    /// One round: submit as many steps ahead as the submitter allows, then complete the oldest.
    fn turn(&mut self) -> Result<(), EngineError> {
        self.drop_gone();
        self.end_quarantine();
        self.idle = false;
        while self.flight.len() < self.depth() {
            match self.scheduler.plan(self.flight.len()) {
                Next::Step(plan) => self.submit(plan)?,
                next => {
                    self.idle = matches!(next, Next::Idle);
                    break;
                }
            }
        }
        match self.flight.pop_front() {
            Some(flight) => self.complete(flight),
            None => Ok(()),
        }
    }

    /// Steps in flight at once. Log-probabilities are read from the step's logits, which the next step overwrites. A sequence
    /// that may stop at any token is computed one step ahead of what is known of it, so that no more than one is discarded.
    fn depth(&self) -> usize {
        let any = |asks: fn(&Scheduled<Client>) -> bool| {
            self.scheduler.running.iter().chain(&self.scheduler.waiting).any(asks)
        };
        if any(|s| s.rest.request.logprobs.is_some() || !s.progress.untold.is_empty()) {
            1
        } else if any(|s| s.rest.may_stop()) {
            self.stepper.depth().min(2)
        } else {
            self.stepper.depth()
        }
    }

    fn submit(&mut self, plan: Plan) -> Result<(), EngineError> {
        self.shared.begin_step();
        for part in plan.parts.iter().filter(|p| p.first) {
            if let Some(s) = self.scheduler.get(part.id) {
                s.rest.start(s.progress.cached);
            }
        }
        let previous = self.flight.back().map(|f| &f.step);
        let start = Instant::now();
        match self.stepper.submit(&plan, &mut self.scheduler, previous) {
            Ok(step) => {
                self.shared.note_submitted(start.elapsed());
                self.flight.push_back(Flight { plan, step });
                Ok(())
            }
            Err(refusal) => {
                if let Some(id) = refusal.sequence {
                    let metrics = self.shared.metrics.clone();
                    self.end(id, |client| client.fail(refusal.error.clone().into(), &metrics));
                }
                let fault = if refusal.sequence.is_some() { Fault::Request } else { Fault::Step };
                self.recover(&refusal.error, vec![plan], fault)
            }
        }
    }

    fn complete(&mut self, flight: Flight) -> Result<(), EngineError> {
        let outcome = self.stepper.complete(&flight.step, self.step_limit);
        self.shared.end_step(!self.flight.is_empty());
        match outcome {
            Ok(tokens) => {
                self.shared.metrics.step_tokens.observe(flight.plan.tokens.len() as f64);
                self.deliver(&flight.plan, &tokens);
                Ok(())
            }
            // Why the step failed: the next look at the weights ends the engine, and this plan's requests with it.
            Err(_) if self.stepper.resident().is_err() => Ok(()),
            Err(failure) => {
                let fault = if failure.spill { Fault::Spill } else { Fault::Step };
                self.recover(&failure.error, vec![flight.plan], fault)
            }
        }
    }

    /// Hands a completed step's results to their sequences.
    fn deliver(&mut self, plan: &Plan, tokens: &[u32]) {
        let metrics = self.shared.metrics.clone();
        for (part, completed) in plan.outcomes() {
            match self.deliver_part(part, completed, tokens) {
                Ok(None) => {}
                Ok(Some(reason)) => self.end(part.id, |client| client.finish(reason, &metrics)),
                Err(error) => self.end(part.id, |client| client.fail(error, &metrics)),
            }
        }
    }

    /// Hands a sequence the step's results, and says if its answer ends with them.
    fn deliver_part(
        &mut self,
        part: &Part,
        completed: usize,
        tokens: &[u32],
    ) -> Result<Option<FinishReason>, EngineError> {
        let Some(s) = self.scheduler.running.iter_mut().find(|s| s.id == part.id) else {
            self.stepper.note_discarded(u64::from(part.sample.is_some()));
            return Ok(None);
        };
        if part.scores.clone().chain(part.sample).any(|row| tokens[row as usize] == u32::MAX) {
            let why = "the model's logits hold no finite value; its weights may be damaged";
            return Err(EngineError::Device(why.into()));
        }
        if let Some(top) = s.rest.request.prompt_logprobs {
            let told = s.progress.tell(completed);
            let mut rows = part.scores.clone();
            let run: Result<Vec<PromptToken>, DeviceError> = told
                .map(|i| {
                    let id = s.progress.tokens[i];
                    // Nothing predicts the first.
                    let row = if i == 0 { None } else { rows.next() };
                    Ok(PromptToken { id, logprobs: row.map(|row| self.stepper.logprobs(row, id, top)).transpose()? })
                })
                .collect();
            s.rest.prompt(run?);
        }
        let sampled = part.sample.map(|row| (row, tokens[row as usize]));
        if let Some((_, token)) = sampled {
            s.progress.receive(token);
        }
        if self.share {
            s.progress.publish(&mut self.scheduler.pool, completed);
        }
        let mut reason = None;
        if let Some((row, token)) = sampled {
            let top = s.rest.request.logprobs;
            let logprobs = top.map(|top| self.stepper.logprobs(row, token, top)).transpose()?;
            reason = s.rest.token(token, self.eos.contains(&token), logprobs, &self.shared.metrics)?;
        }
        let at_end = completed >= s.progress.prompt && s.progress.tokens.len() >= s.progress.end;
        Ok(reason.or(at_end.then_some(FinishReason::Length)))
    }

    /// Takes a sequence out and gives its client the last word.
    fn end(&mut self, id: u64, last_word: impl FnOnce(Client)) {
        if let Some(s) = self.scheduler.finish(id) {
            self.stepper.release_slot(s.rest.slot);
            last_word(s.rest);
        }
    }

    /// Drops the requests whose answers nobody reads any more.
    fn drop_gone(&mut self) {
        let metrics = self.shared.metrics.clone();
        let gone: Vec<u64> = self.scheduler.running.iter().filter(|s| s.rest.gone()).map(|s| s.id).collect();
        for id in gone {
            self.end(id, |client| client.abandon(&metrics));
        }
        let waiting = std::mem::take(&mut self.scheduler.waiting);
        for s in waiting {
            if s.rest.gone() {
                self.stepper.release_slot(s.rest.slot);
                s.rest.abandon(&metrics);
            } else {
                self.scheduler.waiting.push_back(s);
            }
        }
    }

    /// Gives blocks back to the pool that nothing can write any more.
    fn end_quarantine(&mut self) {
        let pool = &mut self.scheduler.pool;
        self.quarantine.retain(|(copy, blocks)| {
            let writes = copy.may_still_land();
            if !writes {
                blocks.iter().for_each(|&id| pool.release(id));
            }
            writes
        });
    }

    /// After a failed step: waits for the rest in flight, forgets what they computed, and computes the sequences again, or fails
    /// them if that was tried and the fault may be theirs. A device that is lost or hangs ends the engine.
    fn recover(&mut self, error: &DeviceError, mut plans: Vec<Plan>, fault: Fault) -> Result<(), EngineError> {
        self.check_device(error)?;
        if fault != Fault::Spill {
            tracing::warn!(%error, "a step failed; its requests are computed again");
        }
        for flight in std::mem::take(&mut self.flight) {
            // Its input came from the failed step, so how it ends tells only whether the device works still.
            if let Err(failure) = self.stepper.complete(&flight.step, self.step_limit) {
                self.check_device(&failure.error)?;
            }
            plans.push(flight.plan);
        }
        for quarantined in self.stepper.take_quarantined() {
            quarantined.1.iter().for_each(|&id| self.scheduler.pool.hold(id));
            self.quarantine.push(quarantined);
        }
        self.shared.end_step(false);
        let metrics = self.shared.metrics.clone();
        let mut ids: Vec<u64> = plans.iter().flat_map(|p| p.parts.iter().map(|part| part.id)).collect();
        ids.sort_unstable();
        ids.dedup();
        // Oldest last, so that it ends at the front of the queue.
        for id in ids.into_iter().rev() {
            let Some(mut s) = self.scheduler.finish(id) else { continue };
            s.progress.pending = 0;
            s.rest.retries += u32::from(fault == Fault::Step);
            // A restored block may be what failed it.
            s.progress.restore = false;
            if s.rest.retries > RETRIES {
                self.stepper.release_slot(s.rest.slot);
                s.rest.fail(error.clone().into(), &metrics);
            } else {
                // Its token counts may hold a token that was never sent.
                self.stepper.release_slot(s.rest.slot.take());
                s.rest.observed = false;
                self.scheduler.waiting.push_front(s);
            }
        }
        self.scheduler.pool.forget();
        Ok(())
    }

    /// Fails if nothing that is submitted after such an error can ever complete: command buffers run in order.
    fn check_device(&mut self, error: &DeviceError) -> Result<(), EngineError> {
        let fatal = match error {
            DeviceError::Lost(_) => error.clone().into(),
            DeviceError::Timeout { .. } => EngineError::Device(format!(
                "the device hangs: a step did not complete within {:?}, engine.step_limit_s; load the engine again",
                self.step_limit
            )),
            _ => return Ok(()),
        };
        // What is in flight never completes, or nobody can tell.
        self.flight.clear();
        Err(fatal)
    }

    fn publish_gauges(&mut self) {
        let m = &self.shared.metrics;
        m.running.set(self.scheduler.running.len() as i64);
        m.waiting.set(self.scheduler.waiting.len() as i64);
        m.kv_usage.set(self.scheduler.pool.usage());
        m.prefix_queries.inc_by(std::mem::take(&mut self.scheduler.prefix_queries));
        m.prefix_hits.inc_by(std::mem::take(&mut self.scheduler.prefix_hits));
        m.preemptions.inc_by(std::mem::take(&mut self.scheduler.preemptions));
        m.prompt_tokens.inc_by(std::mem::take(&mut self.scheduler.prompt_tokens));
        self.publish_stats();
        self.shared.heartbeat.fetch_add(1, Ordering::Relaxed);
    }

    fn publish_stats(&self) {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.stepper.stats();
    }
}
