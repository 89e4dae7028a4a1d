use crate::block_pool::{BLOCK_TOKENS, BlockPool, Prefix};
use mlx_serving_device::ops::{SAMPLED, Span};
use std::collections::VecDeque;
use std::ops::Range;

/// Bounds of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rows of one step: decode rows first, then chunks of prompts.
    pub rows: usize,
    /// Sequences that run at once, and rows of a step that may have logits.
    pub sequences: usize,
}

/// Progress of a sequence, as far as the scheduler knows.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Prompt and answer as far as known.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Positions whose keys and values are in the cache, or will be once the submitted steps have run.
    pub computed: usize,
    /// Sampled tokens that are in flight.
    pub pending: usize,
    /// No more tokens than this in all.
    pub end: usize,
    /// Tokens of the prompt whose log-probabilities are to be told still; those of each are had from the position before it.
    pub untold: Range<usize>,
    /// KV blocks, in order.
    pub blocks: Vec<u32>,
    /// Found in the prefix cache when it was last admitted.
    pub cached: usize,
    /// Spilled blocks may be restored for it.
    pub restore: bool,
    /// It was admitted before: what is counted once a request has been.
    counted: bool,
    published: Prefix,
    published_blocks: usize,
    /// Its row in the previous step's sampled tokens.
    last_sample: Option<(u64, u32)>,
}

impl Progress {
    /// A sequence with nothing computed that may grow to `end` tokens.
    pub(crate) fn new(prompt: Vec<u32>, end: usize) -> Self {
        Self {
            prompt: prompt.len(),
            tokens: prompt,
            computed: 0,
            pending: 0,
            end,
            untold: 0..0,
            blocks: Vec::new(),
            cached: 0,
            restore: true,
            counted: false,
            published: Prefix::ROOT,
            published_blocks: 0,
            last_sample: None,
        }
    }

    /// The same with log-probabilities of the prompt.
    pub(crate) fn scoring(mut self) -> Self {
        self.untold = 0..self.prompt;
        self
    }

    /// True while it has rows to compute: of the prompt, or for a token of the answer.
    fn unfinished(&self) -> bool {
        self.computed < self.prompt || self.tokens.len() + self.pending < self.end
    }

    /// The next token is sampled from the row at this position.
    fn samples_at(&self, position: usize) -> bool {
        let known = self.tokens.len() + self.pending;
        position + 1 == known && known < self.end
    }

    /// The row at this position tells a prompt token's log-probability.
    fn scores_at(&self, position: usize) -> bool {
        self.untold.contains(&(position + 1))
    }

    /// True if its next row is the newest token.
    fn decoding(&self) -> bool {
        self.computed + 1 >= self.tokens.len() + self.pending && self.tokens.len() + self.pending > self.prompt
    }

    /// Takes a sampled token that has arrived.
    pub(crate) fn receive(&mut self, token: u32) {
        self.pending -= 1;
        self.tokens.push(token);
    }

    /// Shares the blocks that are full and known. `completed`: positions that completed steps have computed, not those in flight,
    /// which may fail.
    pub(crate) fn publish(&mut self, pool: &mut BlockPool, completed: usize) {
        let known = completed.min(self.tokens.len()) / BLOCK_TOKENS;
        for i in self.published_blocks..known {
            let tokens = &self.tokens[i * BLOCK_TOKENS..(i + 1) * BLOCK_TOKENS];
            self.published = pool.publish(self.blocks[i], self.published, tokens);
        }
        self.published_blocks = self.published_blocks.max(known);
    }

    /// Takes the prompt tokens whose log-probabilities are known once `completed` positions are computed.
    pub(crate) fn tell(&mut self, completed: usize) -> Range<usize> {
        let first = self.untold.start;
        self.untold.start = (completed + 1).clamp(first, self.untold.end);
        first..self.untold.start
    }

    /// Releases the blocks, last first, so that the head of a prefix outlives its tail.
    pub(crate) fn release(&mut self, pool: &mut BlockPool) {
        while let Some(id) = self.blocks.pop() {
            pool.release(id);
        }
        self.computed = 0;
        self.published = Prefix::ROOT;
        self.published_blocks = 0;
        self.last_sample = None;
    }

    fn admit(&mut self, pool: &mut BlockPool) -> bool {
        // What is found cached has no logits: only positions whose logits have served are taken from there.
        let served = if self.untold.is_empty() { self.tokens.len() } else { self.untold.start };
        let mut blocks = pool.take_prefix(&self.tokens[..served], self.restore);
        let cached = blocks.len();
        while blocks.len() * BLOCK_TOKENS < self.tokens.len() {
            match pool.take() {
                Some(id) => blocks.push(id),
                None => {
                    blocks.into_iter().rev().for_each(|id| pool.release(id));
                    return false;
                }
            }
        }
        self.cached = cached * BLOCK_TOKENS;
        self.computed = self.cached;
        self.published = self.tokens[..self.cached].chunks_exact(BLOCK_TOKENS).fold(Prefix::ROOT, |p, c| p.extend(c));
        self.published_blocks = cached;
        self.blocks = blocks;
        true
    }
}

/// A sequence with its scheduling state; `T` is what the engine keeps beside it.
#[derive(Debug)]
pub(crate) struct Scheduled<T> {
    pub id: u64,
    pub progress: Progress,
    pub rest: T,
}

/// One sequence's part of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The sequence.
    pub id: u64,
    /// Its rows of logits that score tokens of its prompt, in order.
    pub scores: Range<u32>,
    /// The row of logits, behind those, from which its next token is sampled, if its newest token is in this step.
    pub sample: Option<u32>,
    /// This step is the first to compute anything of it since it was admitted.
    pub first: bool,
}

/// A step, ready to be encoded.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Number of the step.
    pub step: u64,
    /// Token words, see [`SAMPLED`].
    pub tokens: Vec<u32>,
    pub positions: Vec<u32>,
    pub spans: Vec<Span>,
    pub tables: Vec<u32>,
    /// Rows whose logits are needed, part by part. A token is sampled from each; those of rows that score are not looked at.
    pub logit_rows: Vec<u32>,
    pub parts: Vec<Part>,
    /// One beyond the largest position.
    pub max_context: usize,
    /// Prompt length of each span's sequence.
    pub prompts: Vec<u32>,
    /// A row refers to the previous step's sampled tokens.
    pub continues: bool,
}

/// Decision about the next step.
#[derive(Debug)]
pub(crate) enum Next {
    /// Encode this.
    Step(Plan),
    /// Complete the steps in flight first: a decision depends on them.
    Drain,
    /// Nothing to do.
    Idle,
}

/// Decides what each step computes: every decoding sequence, then prompts in order of arrival, chunked to what is left of the
/// step's rows and of its rows of logits. Where blocks run out, the youngest sequence gives its own back and is computed again
/// later.
#[derive(Debug)]
pub(crate) struct Scheduler<T> {
    pub waiting: VecDeque<Scheduled<T>>,
    pub running: Vec<Scheduled<T>>,
    pub pool: BlockPool,
    /// Times a sequence had to give its blocks back.
    pub preemptions: u64,
    /// Prompt tokens looked up in the prefix cache, and found, when a request was first admitted.
    pub prefix_queries: u64,
    pub prefix_hits: u64,
    /// Prompt tokens taken in, once a request.
    pub prompt_tokens: u64,
    limits: Limits,
    step: u64,
}

impl<T> Scheduler<T> {
    pub(crate) fn new(limits: Limits, pool: BlockPool) -> Self {
        Self {
            waiting: VecDeque::new(),
            running: Vec::new(),
            pool,
            preemptions: 0,
            prefix_queries: 0,
            prefix_hits: 0,
            prompt_tokens: 0,
            limits,
            step: 0,
        }
    }

    /// True without any sequence.
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Plans the next step. `in_flight`: steps that were planned and are not completed.
    pub(crate) fn plan(&mut self, in_flight: usize) -> Next {
        if !self.make_room(in_flight) {
            return Next::Drain;
        }
        let previous = self.step;
        let mut plan = Plan { step: previous + 1, ..Plan::default() };
        for decoding in [true, false] {
            for s in &mut self.running {
                if s.progress.unfinished() && s.progress.decoding() == decoding {
                    plan.add(s.id, &mut s.progress, self.limits, previous);
                }
            }
        }
        while plan.tokens.len() < self.limits.rows && self.running.len() < self.limits.sequences {
            let Some(mut s) = self.waiting.pop_front() else { break };
            if !s.progress.admit(&mut self.pool) {
                self.waiting.push_front(s);
                break;
            }
            if !std::mem::replace(&mut s.progress.counted, true) {
                self.prefix_queries += s.progress.prompt as u64;
                self.prefix_hits += s.progress.cached as u64;
                self.prompt_tokens += s.progress.prompt as u64;
            }
            plan.add(s.id, &mut s.progress, self.limits, previous);
            self.running.push(s);
        }
        if plan.tokens.is_empty() {
            return if in_flight > 0 { Next::Drain } else { Next::Idle };
        }
        self.step = plan.step;
        Next::Step(plan)
    }

    /// Gives every decoding sequence the block that its next row needs, at the cost of the youngest. False if that needs a
    /// sequence whose steps are in flight.
    fn make_room(&mut self, in_flight: usize) -> bool {
        let mut i = 0;
        while i < self.running.len() {
            let progress = &mut self.running[i].progress;
            if !progress.unfinished() || progress.computed < progress.blocks.len() * BLOCK_TOKENS {
                i += 1;
            } else if let Some(id) = self.pool.take() {
                progress.blocks.push(id);
            } else if in_flight > 0 {
                return false;
            } else {
                // Popping the youngest may be this very sequence; then the loop ends with it.
                let Some(mut youngest) = self.running.pop() else { return true };
                youngest.progress.release(&mut self.pool);
                self.preemptions += 1;
                self.waiting.push_front(youngest);
            }
        }
        true
    }

    /// Takes a sequence out of the running ones and frees its blocks.
    pub(crate) fn finish(&mut self, id: u64) -> Option<Scheduled<T>> {
        let i = self.running.iter().position(|s| s.id == id)?;
        let mut s = self.running.remove(i);
        s.progress.release(&mut self.pool);
        Some(s)
    }

    /// The running sequence of that id.
    pub(crate) fn get(&mut self, id: u64) -> Option<&mut Scheduled<T>> {
        self.running.iter_mut().find(|s| s.id == id)
    }
}

impl Plan {
    /// Each part with the number of its sequence's positions that are computed once the step has completed.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (&Part, usize)> {
        self.parts.iter().zip(self.spans.iter().map(|span| (span.start + span.rows) as usize))
    }

    /// Adds as many rows of a sequence as there is room for.
    fn add(&mut self, id: u64, p: &mut Progress, limits: Limits, previous: u64) {
        let (first_row, start) = (self.tokens.len(), p.computed);
        let first_logits = self.logit_rows.len();
        if start < p.tokens.len() {
            for position in start..p.tokens.len() {
                let logits = p.scores_at(position) || p.samples_at(position);
                if self.tokens.len() == limits.rows || logits && self.logit_rows.len() == limits.sequences {
                    break;
                }
                self.row(p.tokens[position], position, logits);
            }
        } else if let Some((step, sample)) = p.last_sample
            && step == previous
            && self.tokens.len() < limits.rows
        {
            // Its newest token is on the device still: usable if the very last step sampled it.
            self.row(SAMPLED | sample, start, true);
            self.continues = true;
        }
        let rows = self.tokens.len() - first_row;
        if rows == 0 {
            return;
        }
        let table = self.tables.len() as u32;
        self.tables.extend(&p.blocks[..(start + rows).div_ceil(BLOCK_TOKENS)]);
        self.spans.push(Span { first_row: first_row as u32, rows: rows as u32, start: start as u32, table });
        self.prompts.push(p.prompt as u32);
        self.max_context = self.max_context.max(start + rows);
        p.computed = start + rows;
        let mut scores = first_logits as u32..self.logit_rows.len() as u32;
        let sample = p.samples_at(p.computed - 1).then(|| {
            scores.end -= 1;
            scores.end
        });
        if let Some(sample) = sample {
            p.last_sample = Some((self.step, sample));
            p.pending += 1;
        }
        self.parts.push(Part { id, scores, sample, first: start == p.cached });
    }

    fn row(&mut self, token: u32, position: usize, logits: bool) {
        if logits {
            self.logit_rows.push(self.tokens.len() as u32);
        }
        self.tokens.push(token);
        self.positions.push(position as u32);
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
