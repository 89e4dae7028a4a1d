use crate::block_pool::{BLOCK_TOKENS, BlockPool, Prefix};
use mlx_serving_device::ops::{SAMPLED, Span};
use std::collections::VecDeque;

/// Bounds of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rows of one step: decode rows first, then chunks of prompts.
    pub rows: usize,
    /// Sequences that run at once.
    pub sequences: usize,
}

/// What the scheduler knows of a sequence.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Prompt and answer as far as known.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Positions whose keys and values are in the cache, or will be once the submitted steps have run.
    pub computed: usize,
    /// Sampled tokens that are on their way.
    pub pending: usize,
    /// No more tokens than this in all.
    pub end: usize,
    /// KV blocks, in order.
    pub blocks: Vec<u32>,
    /// Found in the prefix cache when it was last admitted.
    pub cached: usize,
    /// Spilled blocks may be brought back for it.
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
            blocks: Vec::new(),
            cached: 0,
            restore: true,
            counted: false,
            published: Prefix::ROOT,
            published_blocks: 0,
            last_sample: None,
        }
    }

    /// True while it has rows to compute for the answer.
    fn unfinished(&self) -> bool {
        self.tokens.len() + self.pending < self.end
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

    /// Lets go of the blocks, last first, so that the head of a prefix outlives its tail.
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
        let mut blocks = pool.take_prefix(&self.tokens, self.restore);
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// The sequence.
    pub id: u64,
    /// Its row among the sampled tokens, if its newest token is in this step.
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
    /// Rows whose logits are needed, in the order of the samples.
    pub logit_rows: Vec<u32>,
    pub parts: Vec<Part>,
    /// One beyond the largest position.
    pub max_context: usize,
    /// Prompt length of each span's sequence.
    pub prompts: Vec<u32>,
    /// A row refers to the previous step's sampled tokens.
    pub continues: bool,
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Encode this.
    Step(Plan),
    /// Complete the steps in flight first: a decision depends on them.
    Drain,
    /// Nothing to do.
    Idle,
}

/// Decides what each step computes: every decoding sequence, then prompts in order of arrival, chunked to the step's rows.
/// When blocks run out, the youngest sequence gives its own back and is computed again later.
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

    /// Plans the next step. `in_flight`: steps that were planned and are not completed.
    pub(crate) fn plan(&mut self, in_flight: usize) -> Next {
        if !self.make_room(in_flight) {
            return Next::Drain;
        }
        let previous = self.step;
        let mut plan = Plan { step: previous + 1, ..Plan::default() };
        for decoding in [true, false] {
            for s in &mut self.running {
                let room = self.limits.rows - plan.tokens.len();
                if room > 0 && s.progress.unfinished() && s.progress.decoding() == decoding {
                    plan.add(s.id, &mut s.progress, room, previous, false);
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
            plan.add(s.id, &mut s.progress, self.limits.rows - plan.tokens.len(), previous, true);
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

    /// Adds up to `room` rows of a sequence.
    fn add(&mut self, id: u64, p: &mut Progress, room: usize, previous: u64, first: bool) {
        let start = p.computed;
        let known = p.tokens.len();
        let row = |plan: &mut Plan, token: u32, position: usize| {
            plan.tokens.push(token);
            plan.positions.push(position as u32);
        };
        let first_row = self.tokens.len() as u32;
        let rows = if start < known {
            let rows = (known - start).min(room);
            for position in start..start + rows {
                row(self, p.tokens[position], position);
            }
            rows
        } else {
            // Its newest token is on the device still: usable if the very last step sampled it.
            let Some((step, sample)) = p.last_sample else { return };
            if step != previous {
                return;
            }
            row(self, SAMPLED | sample, start);
            self.continues = true;
            1
        };
        let table = self.tables.len() as u32;
        self.tables.extend(&p.blocks[..(start + rows).div_ceil(BLOCK_TOKENS)]);
        self.spans.push(Span { first_row, rows: rows as u32, start: start as u32, table });
        self.prompts.push(p.prompt as u32);
        self.max_context = self.max_context.max(start + rows);
        p.computed = start + rows;
        let newest = p.computed == known + p.pending;
        let sample = newest.then_some(self.logit_rows.len() as u32);
        if let Some(sample) = sample {
            self.logit_rows.push(first_row + rows as u32 - 1);
            p.last_sample = Some((self.step, sample));
            p.pending += 1;
        }
        self.parts.push(Part { id, sample, first });
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
