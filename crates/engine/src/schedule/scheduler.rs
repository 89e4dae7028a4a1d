use crate::error::EngineError;
use crate::kv::block_pool::BlockPool;
use crate::masks::board::Order;
use crate::metrics::Metrics;
use crate::schedule::history::HistoryRows;
use crate::schedule::plan::{Next, Part, Plan, Results, StepLimits};
use crate::schedule::policy;
use crate::sequence::Sequence;
use std::collections::VecDeque;

/// Decides what each step computes: every decoding sequence, then prompts in order of arrival, chunked to what is left of the
/// step's rows and of its rows of logits. A sequence whose reader is behind is left out. Where blocks run out, such a one gives its
/// own back, or else the youngest, and is computed again later.
pub(crate) struct Scheduler {
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    pool: BlockPool,
    history: HistoryRows,
    limits: StepLimits,
    /// Blocks may be shared between sequences.
    share: bool,
    /// Number of the last step.
    step: u64,
    counts: Counts,
}

/// Counts of a scheduler since they were last taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Times a sequence had to give its blocks back.
    pub preemptions: u64,
    /// Prompt tokens looked up in the prefix cache when a request was first admitted.
    pub prefix_queries: u64,
    /// Prompt tokens found there.
    pub prefix_hits: u64,
    /// Prompt tokens taken in, once a request.
    pub prompt_tokens: u64,
}

impl Scheduler {
    /// A scheduler without sequences; `share` if these may share blocks.
    pub(crate) fn new(limits: StepLimits, pool: BlockPool, share: bool) -> Self {
        Self {
            waiting: VecDeque::new(),
            running: Vec::new(),
            pool,
            history: HistoryRows::new(limits.sequences),
            limits,
            share,
            step: 0,
            counts: Counts::default(),
        }
    }

    /// True if a sequence waits for something else than its reader.
    pub(crate) fn waits(&self) -> bool {
        self.running.iter().chain(&self.waiting).any(|s| !s.paused())
    }

    /// Sequences that run.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Share of the KV blocks in use.
    pub(crate) fn usage(&self) -> f64 {
        self.pool.usage()
    }

    /// Takes the counts.
    pub(crate) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Steps that may be in flight beyond the oldest.
    pub(crate) fn lookahead(&self) -> usize {
        policy::lookahead(self.running.iter().chain(&self.waiting))
    }

    /// Lets a sequence wait for its turn.
    pub(crate) fn enqueue(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// Plans the next step. `in_flight`: steps that were planned and are not completed.
    pub(crate) fn plan(&mut self, in_flight: usize) -> Next {
        self.running.iter_mut().chain(&mut self.waiting).for_each(Sequence::look_at_reader);
        if !self.make_room(in_flight) {
            return Next::Drain;
        }
        let params = self.limits.sequences.min(self.running.len() + self.waiting.len());
        let mut plan = Plan { step: self.step + 1, params: Vec::with_capacity(params), ..Plan::default() };
        let paced = policy::paces_forced(&self.running);
        for has_turn in policy::PASSES {
            for sequence in self.running.iter_mut().filter(|s| has_turn(s)) {
                sequence.join(&mut plan, self.limits, &self.history, paced);
            }
        }
        while plan.batch.tokens.len() < self.limits.rows {
            let Some(next) = self.waiting.iter().position(|s| !s.paused()) else { break };
            let has_place = self.running.len() < self.limits.sequences;
            let admitted = has_place.then(|| self.waiting[next].admit(&self.pool)).flatten();
            let Some(admitted) = admitted else {
                if self.preempt_resting() {
                    continue;
                }
                break;
            };
            let Some(mut sequence) = self.waiting.remove(next) else { break };
            if admitted.first {
                self.counts.prefix_queries += admitted.prompt as u64;
                self.counts.prefix_hits += admitted.cached as u64;
                self.counts.prompt_tokens += admitted.prompt as u64;
            }
            sequence.join(&mut plan, self.limits, &self.history, false);
            self.running.push(sequence);
        }
        if plan.batch.tokens.is_empty() {
            return if in_flight > 0 { Next::Drain } else { Next::Idle };
        }
        let mut plan = plan.sealed();
        self.step = plan.step;
        plan.moves = self.pool.take_moves();
        Next::Step(plan)
    }

    /// Hands a sequence the results of its part of a completed step, after which so many of its positions are computed. False if
    /// it has ended before: the results are discarded.
    pub(crate) fn complete(
        &mut self,
        part: &Part,
        completed: usize,
        results: Result<Results, EngineError>,
        metrics: &Metrics,
    ) -> bool {
        let Some(i) = self.running.iter().position(|s| s.id() == part.id) else { return false };
        let masked = part.mask.is_some();
        match self.running[i].receive(results, masked, completed, self.share, metrics) {
            Ok(None) => {}
            Ok(Some(reason)) => self.running.remove(i).finish(reason, metrics),
            Err(error) => self.running.remove(i).fail(error, metrics),
        }
        true
    }

    /// Gives the sequences of a submitted plan the orders for their masks, which are in the order of its parts.
    pub(crate) fn give_orders(&mut self, plan: &Plan, orders: Vec<Order>) {
        let masked = plan.parts.iter().filter(|part| part.mask.is_some());
        for (part, order) in masked.zip(orders) {
            if let Some(sequence) = self.running.iter_mut().find(|s| s.id() == part.id) {
                sequence.accept(order);
            }
        }
    }

    /// Puts the sequences that failed steps have computed back to the head of the queue, and forgets what is shared: it may come
    /// from such a step. Returns those that `gives_up` finds were computed too often.
    pub(crate) fn requeue(
        &mut self,
        failed: &[Plan],
        mut gives_up: impl FnMut(&mut Sequence) -> bool,
    ) -> Vec<Sequence> {
        let mut ids: Vec<u64> = failed.iter().flat_map(|plan| plan.parts.iter().map(|part| part.id)).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut spent = Vec::new();
        // Oldest last, so that it ends at the front of the queue.
        for id in ids.into_iter().rev() {
            let Some(mut sequence) = self.take(id) else { continue };
            if gives_up(&mut sequence) {
                spent.push(sequence);
            } else {
                self.waiting.push_front(sequence);
            }
        }
        self.pool.forget();
        spent
    }

    /// Takes a running sequence out.
    pub(crate) fn take(&mut self, id: u64) -> Option<Sequence> {
        let i = self.running.iter().position(|s| s.id() == id)?;
        Some(self.running.remove(i))
    }

    /// Takes the sequences out whose answers nobody reads any more.
    pub(crate) fn take_gone(&mut self) -> Vec<Sequence> {
        let mut gone: Vec<Sequence> = self.running.extract_if(.., |s| s.gone()).collect();
        while let Some(i) = self.waiting.iter().position(Sequence::gone) {
            gone.extend(self.waiting.remove(i));
        }
        gone
    }

    /// Takes all sequences out.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Sequence> {
        self.running.drain(..).chain(self.waiting.drain(..))
    }

    /// Gives every sequence the blocks that its next rows need, at the cost of one that rests, or else of the youngest. False if that
    /// needs a sequence whose steps are in flight.
    fn make_room(&mut self, in_flight: usize) -> bool {
        while !self.running.iter_mut().all(Sequence::make_room) {
            if self.preempt_resting() {
                continue;
            }
            if in_flight > 0 {
                return false;
            }
            // It may be the one that needs a block.
            let Some(youngest) = policy::victim(&mut self.running) else { return true };
            self.preempt(youngest);
        }
        true
    }

    /// Takes place and blocks of a sequence that rests for one that can use them. False without such a sequence.
    fn preempt_resting(&mut self) -> bool {
        let resting = policy::resting(&mut self.running);
        let found = resting.is_some();
        resting.into_iter().for_each(|sequence| self.preempt(sequence));
        found
    }

    fn preempt(&mut self, mut sequence: Sequence) {
        sequence.release();
        self.counts.preemptions += 1;
        self.waiting.push_front(sequence);
    }
}

#[cfg(test)]
mod tests;
