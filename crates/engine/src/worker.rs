use crate::error::EngineError;
use crate::kv::block_pool::BlockPool;
use crate::kv::mover::Mover;
use crate::kv::spill::SpillStore;
use crate::masks::makers::Makers;
use crate::options::{Info, Options, Parts};
use crate::recovery::{FailedStep, Fault, recover};
use crate::schedule::plan::{Next, Plan, StepLimits};
use crate::schedule::scheduler::{Counts, Scheduler};
use crate::sequence::{Sequence, Terms};
use crate::shared::{Command, EngineStatus};
use crate::step::stepper::{Flight, Sizes, Stepper};
use mlx_serving_model::BLOCK_TOKENS;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// Interval at which an engine that has nothing to compute publishes the device's utilization.
const IDLE: Duration = Duration::from_millis(250);
/// Interval at which it looks for what it waits for: weights in flight, blocks in quarantine.
const ARRIVING: Duration = Duration::from_millis(10);

/// The engine's thread: plans, submits, completes, sends.
pub(crate) struct Worker {
    inbox: Receiver<Command>,
    status: Arc<EngineStatus>,
    scheduler: Scheduler,
    stepper: Stepper,
    /// Steps in flight, oldest first.
    flights: VecDeque<Flight>,
    terms: Terms,
    next_id: u64,
    step_limit: Duration,
    /// True if there is nothing to submit or to complete, though requests may wait for blocks or for their readers.
    idle: bool,
    /// True once all weights have arrived.
    resident: bool,
}

impl Worker {
    pub(crate) fn new(
        parts: Parts,
        options: &Options,
        inbox: Receiver<Command>,
        status: Arc<EngineStatus>,
    ) -> Result<(Info, Self), EngineError> {
        let blocks = options.kv_tokens.div_ceil(BLOCK_TOKENS).max(2);
        let model_context = parts.model.max_context();
        let max_context = model_context.min(blocks * BLOCK_TOKENS);
        let limits =
            StepLimits { rows: options.max_batch_rows.max(options.max_sequences), sequences: options.max_sequences };
        let (vocab, share) = (parts.model.vocab(), parts.model.prefixes_are_shareable());
        let (generates, width) = (parts.model.generates(), parts.model.blueprint().hidden);
        let sizes = Sizes { limits, max_context, blocks };
        let grammar = status.metrics.grammar.clone();
        let makers = Rc::new(Makers::new(options.mask_threads, grammar.clone()));
        let mut stepper = Stepper::new(&parts.device, parts.layer, parts.model, sizes, (options.mask_limit, grammar))?;
        let block_bytes = stepper.kv_bytes() / blocks as u64;
        let store = SpillStore::open(&options.spill, block_bytes, status.metrics.spill.clone())?;
        let pool = BlockPool::new(blocks, store.clone());
        stepper.move_blocks(store.map(|store| Mover::new(store, stepper.transfer(), pool.clone(), block_bytes)));
        status.metrics.configure(BLOCK_TOKENS, blocks);
        let (kv_bytes, max_live) = (stepper.kv_bytes(), status.max_live);
        let info = Info { vocab, max_context, model_context, kv_bytes, max_live, generates, width };
        let resident = stepper.resident().unwrap_or(false);
        status.note_resident(resident);
        let worker = Worker {
            inbox,
            status,
            scheduler: Scheduler::new(limits, pool, share),
            stepper,
            flights: VecDeque::new(),
            terms: Terms { tokenizer: parts.tokenizer, eos: parts.eos.into(), max_context, width, makers },
            next_id: 0,
            step_limit: options.step_limit,
            idle: true,
            resident,
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
        self.status.stop(reason.clone());
        for flight in std::mem::take(&mut self.flights) {
            flight.step.abandon_masks();
            // The answers are lost already; what counts is that the device is done with the buffers.
            let _ = self.stepper.complete(&flight.step, self.step_limit);
        }
        // What was sent before the reason could be seen ends as the others do.
        while let Ok(command) = self.inbox.try_recv() {
            self.accept(command);
        }
        let error = EngineError::Stopped(reason);
        let left: Vec<_> = self.scheduler.take_all().collect();
        self.fail(left, &error);
        self.publish_gauges();
    }

    /// Takes what has arrived; waits if there is nothing else to do. False if the engine shall end.
    fn receive(&mut self) -> bool {
        loop {
            let waits = !self.resident || self.scheduler.waits();
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
                        self.status.publish(self.stepper.stats());
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

    /// Queues a request, or looks at those that are there. False if the engine shall end.
    fn accept(&mut self, command: Command) -> bool {
        match command {
            Command::Submit(arrival) => {
                self.next_id += 1;
                self.scheduler.enqueue(Sequence::new(self.next_id, *arrival, &self.terms));
            }
            Command::Look => {}
            Command::Stop => return false,
        }
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
            self.status.note_resident(self.resident);
        }
        Ok(())
    }

    /// One round: submit as many steps ahead as the submitter and the sequences allow, then complete the oldest.
    fn turn(&mut self) -> Result<(), EngineError> {
        for sequence in self.scheduler.take_gone() {
            sequence.abandon(&self.status.metrics);
        }
        self.stepper.end_quarantine();
        self.idle = false;
        while self.flights.len() < self.stepper.depth().min(self.scheduler.lookahead().saturating_add(1)) {
            match self.scheduler.plan(self.flights.len()) {
                Next::Step(plan) => self.submit(plan)?,
                next => {
                    self.idle = matches!(next, Next::Idle);
                    break;
                }
            }
        }
        match self.flights.pop_front() {
            Some(flight) => self.complete(flight),
            None => Ok(()),
        }
    }

    fn submit(&mut self, plan: Plan) -> Result<(), EngineError> {
        self.status.begin_step();
        let previous = self.flights.back().map(|flight| &flight.step);
        let start = Instant::now();
        match self.stepper.submit(&plan, previous) {
            Ok((step, orders)) => {
                self.status.note_submitted(start.elapsed());
                self.scheduler.give_orders(&plan, orders);
                self.flights.push_back(Flight { plan, step });
                Ok(())
            }
            Err(refusal) => {
                let alone = refusal.sequence.and_then(|id| self.scheduler.take(id));
                if let Some(sequence) = alone {
                    sequence.fail(refusal.error.clone().into(), &self.status.metrics);
                }
                let fault = if refusal.sequence.is_some() { Fault::Request } else { Fault::Step };
                self.recover(FailedStep { error: refusal.error, plan, fault })
            }
        }
    }

    fn complete(&mut self, flight: Flight) -> Result<(), EngineError> {
        let Flight { plan, step } = flight;
        let outcome = self.stepper.complete(&step, self.step_limit);
        self.status.end_step(!self.flights.is_empty());
        match outcome {
            Ok(tokens) => {
                self.deliver(&plan, &tokens);
                Ok(())
            }
            // Why the step failed: the next look at the weights ends the engine, and this plan's requests with it.
            Err(_) if self.stepper.resident().is_err() => Ok(()),
            Err(failure) => {
                let fault = if failure.spill { Fault::Spill } else { Fault::Step };
                self.recover(FailedStep { error: failure.error, plan, fault })
            }
        }
    }

    /// Hands a completed step's results to their sequences.
    fn deliver(&mut self, plan: &Plan, tokens: &[u32]) {
        let _wake = self.status.backlog.wake_once();
        let metrics = &self.status.metrics;
        metrics.step_tokens.observe(plan.batch.tokens.len() as f64);
        for (part, completed) in plan.outcomes() {
            let results = self.stepper.results(plan, part, tokens);
            if !self.scheduler.complete(part, completed, results, metrics) {
                self.stepper.note_discarded(u64::from(part.sample.is_some()));
            }
        }
    }

    fn recover(&mut self, failed: FailedStep) -> Result<(), EngineError> {
        let error = EngineError::from(failed.error.clone());
        let spent = recover(failed, &mut self.flights, &mut self.stepper, &mut self.scheduler, self.step_limit)?;
        self.status.end_step(false);
        self.fail(spent, &error);
        Ok(())
    }

    fn fail(&self, sequences: Vec<Sequence>, error: &EngineError) {
        let _wake = self.status.backlog.wake_once();
        for sequence in sequences {
            sequence.fail(error.clone(), &self.status.metrics);
        }
    }

    fn publish_gauges(&mut self) {
        let m = &self.status.metrics;
        m.running.set(self.scheduler.running() as i64);
        m.waiting.set(self.scheduler.waiting() as i64);
        m.kv_usage.set(self.scheduler.usage());
        let Counts { preemptions, prefix_queries, prefix_hits, prompt_tokens } = self.scheduler.take_counts();
        m.prefix_queries.inc_by(prefix_queries);
        m.prefix_hits.inc_by(prefix_hits);
        m.preemptions.inc_by(preemptions);
        m.prompt_tokens.inc_by(prompt_tokens);
        self.status.publish(self.stepper.stats());
        self.status.beat();
    }
}
