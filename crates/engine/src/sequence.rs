use crate::events::Sender;
use crate::kv::block_pool::{BlockPool, BlockTable};
use crate::kv::prefix::Chain;
use crate::request::{Request, Sampling};
use crate::schedule::history::{HistoryRow, HistoryRows};
use crate::schedule::plan::{Observed, Part, Plan, StepLimits};
use crate::shared::{Arrival, Live};
use mlx_serving_device::ops::{LogitBias, NO_HISTORY_ROW, SAMPLED, SampleParams};
use mlx_serving_model::BLOCK_TOKENS;
use mlx_serving_text::{AnswerText, Tokenizer};
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

mod answer;

/// Facts that all sequences of an engine share.
pub(crate) struct Terms {
    pub tokenizer: Tokenizer,
    /// Tokens that end an answer.
    pub eos: Rc<[u32]>,
    pub max_context: usize,
}

/// A request that runs or waits: its tokens, how far they are computed, and the answer as far as it is sent.
pub(crate) struct Sequence {
    id: u64,
    /// Without its prompt, which is the head of `tokens`.
    request: Request,
    eos: Rc<[u32]>,
    seed: u64,
    /// Prompt and answer as far as known.
    tokens: Vec<u32>,
    /// Tokens of the prompt.
    prompt: usize,
    /// No more tokens than this in all.
    end: usize,
    /// Positions whose keys and values are in the cache, or will be once the submitted steps have run.
    computed: usize,
    /// Sampled tokens that are in flight.
    pending: usize,
    /// Tokens of the prompt whose log-probabilities are to be told still; those of each are had from the position before it.
    untold: Range<usize>,
    /// Its row in the previous step's sampled tokens.
    last_sample: Option<(u64, u32)>,
    /// KV blocks, while it runs.
    blocks: Option<BlockTable>,
    /// Head of these that others may share already.
    published: Chain,
    /// Spilled blocks may be restored for it.
    restore: bool,
    /// Prompt tokens found in the prefix cache when it was first admitted.
    cached: Option<usize>,
    /// Row of its token counts in the sampling history, if it penalizes.
    history: Option<HistoryRow>,
    /// Times that it was computed again after a failed step.
    retries: u32,
    text: AnswerText,
    events: Sender,
    live: Live,
    /// Its reader is behind, so that it has no rows. Looked at once a plan, because the reader may go on at any time.
    paused: bool,
    arrived: Instant,
    started: Option<Instant>,
    prompt_told: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

/// Counts of a sequence that is admitted.
pub(crate) struct Admitted {
    /// True if it never was before.
    pub first: bool,
    /// Tokens of its prompt.
    pub prompt: usize,
    /// Tokens found in the prefix cache.
    pub cached: usize,
}

impl Sequence {
    /// A request that has arrived.
    pub(crate) fn new(id: u64, arrival: Arrival, terms: &Terms) -> Self {
        let Arrival { mut request, stops, events, live, at } = arrival;
        let tokens = std::mem::take(&mut request.prompt);
        let prompt = tokens.len();
        Self {
            id,
            eos: terms.eos.clone(),
            seed: request.sampling.seed.unwrap_or_else(random_seed),
            prompt,
            end: (prompt + request.max_tokens.unwrap_or(usize::MAX / 2)).min(terms.max_context),
            computed: 0,
            pending: 0,
            untold: 0..if request.prompt_logprobs.is_some() { prompt } else { 0 },
            last_sample: None,
            blocks: None,
            published: Chain::new(request.salt),
            restore: true,
            cached: None,
            history: None,
            retries: 0,
            text: AnswerText::new(&terms.tokenizer, (!request.begins_text).then_some(&*tokens), stops),
            events,
            live,
            paused: false,
            arrived: at,
            started: None,
            prompt_told: None,
            first_token: None,
            last_token: None,
            tokens,
            request,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// True if nobody reads its answer any more: the receiver has gone away, or was cut off.
    pub(crate) fn gone(&self) -> bool {
        self.events.unwanted()
    }

    /// Looks whether its reader keeps up.
    pub(crate) fn look_at_reader(&mut self) {
        self.paused = self.request.read_ahead.is_some_and(|most| self.events.awaits_reader(self.pending, most));
    }

    /// True if it waits for its reader, who wakes the engine.
    pub(crate) fn paused(&self) -> bool {
        self.paused
    }

    /// True if it may give its blocks back though steps are in flight: it waits for its reader, and for no step.
    pub(crate) fn rests(&self) -> bool {
        self.paused && self.pending == 0
    }

    /// Steps that may be in flight beyond the one that it waits for. None where log-probabilities are read from a step's logits,
    /// which the next step overwrites. One where any token may be its last, so that no more than one row is discarded. One that is paused
    /// joins no step.
    pub(crate) fn lookahead(&self) -> usize {
        if self.paused {
            usize::MAX
        } else if self.request.logprobs.is_some() || !self.untold.is_empty() {
            0
        } else if !self.request.ignore_eos || !self.request.stop.is_empty() {
            1
        } else {
            usize::MAX
        }
    }

    /// Its next row is its newest token.
    pub(crate) fn decodes(&self) -> bool {
        self.has_rows() && self.known() > self.prompt && self.computed + 1 >= self.known()
    }

    /// Its next row is one of the prompt, or of an answer that is computed again.
    pub(crate) fn prefills(&self) -> bool {
        self.has_rows() && !self.decodes()
    }

    /// Its next row needs one more block than it has.
    pub(crate) fn needs_block(&self) -> bool {
        self.has_rows() && self.blocks.as_ref().is_some_and(|blocks| self.computed >= blocks.room())
    }

    /// Takes one more block. False when there is none.
    pub(crate) fn grow(&mut self) -> bool {
        self.blocks.as_mut().is_some_and(BlockTable::grow)
    }

    /// Takes blocks for all known tokens, cached ones as far as there are any. `None` if there are not enough.
    pub(crate) fn admit(&mut self, pool: &BlockPool) -> Option<Admitted> {
        // What is found cached has no logits: only positions whose logits have served are taken from there.
        let served = if self.untold.is_empty() { self.tokens.len() } else { self.untold.start };
        let mut published = Chain::new(self.request.salt);
        let mut blocks = pool.take_prefix(&mut published, &self.tokens[..served], self.restore);
        while blocks.room() < self.tokens.len() {
            if !blocks.grow() {
                return None;
            }
        }
        (self.blocks, self.published) = (Some(blocks), published);
        self.computed = published.blocks() * BLOCK_TOKENS;
        let first = self.cached.is_none();
        self.cached.get_or_insert(self.computed);
        Some(Admitted { first, prompt: self.prompt, cached: self.computed })
    }

    /// Gives its blocks back; all is to be computed again.
    pub(crate) fn release(&mut self) {
        self.blocks = None;
        self.computed = 0;
        self.last_sample = None;
        // Others may need it meanwhile; and after a failure it may count a token that was never sent.
        self.history = None;
    }

    /// Gives up what steps have computed that failed. Returns how often that has happened, this time included if it `counts`.
    pub(crate) fn reset(&mut self, counts: bool) -> u32 {
        self.release();
        self.pending = 0;
        // A restored block may be what failed it.
        self.restore = false;
        self.retries += u32::from(counts);
        self.retries
    }

    /// Adds as many of its rows to a step as there is room for.
    pub(crate) fn join(&mut self, plan: &mut Plan, limits: StepLimits, history: &HistoryRows) {
        let Some(blocks) = &self.blocks else { return };
        let (first_row, start) = (plan.batch.tokens.len(), self.computed);
        let first_logits = plan.batch.logit_rows.len();
        let (mut rows, mut scored, mut newest) = (0, Vec::new(), None);
        if start < self.tokens.len() {
            for position in start..self.tokens.len() {
                let scores = self.scores_at(position);
                let logits = scores || self.samples_at(position);
                let row = first_row + rows;
                if row == limits.rows || logits && plan.batch.logit_rows.len() == limits.sequences {
                    break;
                }
                if logits {
                    plan.batch.logit_rows.push(row as u32);
                }
                if scores {
                    scored.push(self.tokens[position + 1]);
                }
                rows += 1;
            }
        } else if let Some((step, sample)) = self.last_sample
            && step + 1 == plan.step
            && first_row < limits.rows
        {
            // Its newest token is on the device still: usable if the very last step sampled it.
            plan.batch.logit_rows.push(first_row as u32);
            (rows, newest, plan.continues) = (1, Some([SAMPLED | sample]), true);
        }
        if rows == 0 {
            return;
        }
        let tokens = newest.as_ref().map_or_else(|| &self.tokens[start..start + rows], |newest| &newest[..]);
        let table = &blocks.ids()[..(start + rows).div_ceil(BLOCK_TOKENS)];
        plan.batch.push(tokens, start, self.prompt, table.iter().copied());
        plan.params.extend(scored.iter().map(|_| SampleParams::GREEDY));
        self.computed = start + rows;
        self.started.get_or_insert_with(Instant::now);
        let scores = first_logits as u32..(first_logits + scored.len()) as u32;
        let sample = self.samples_at(self.computed - 1).then_some(scores.end);
        let observe = sample.and_then(|row| self.sample(plan, row, history));
        plan.parts.push(Part {
            id: self.id,
            scores,
            scored,
            scored_top: self.request.prompt_logprobs.unwrap_or(0),
            sample,
            sampled_top: self.request.logprobs,
            observe,
        });
    }

    /// Samples its next token from a row of a step's logits. The first time that it penalizes it gets a row of the history; its
    /// tokens are all known then: they come from a prompt, or it is computed again.
    fn sample(&mut self, plan: &mut Plan, row: u32, history: &HistoryRows) -> Option<Observed> {
        let begins = self.request.sampling.penalizes() && self.history.is_none();
        if begins {
            self.history = history.take();
        }
        let counts = self.history.as_ref().map(HistoryRow::number);
        let biases = &self.request.sampling.logit_bias;
        plan.params.push(SampleParams {
            position: self.computed as u32,
            history_row: counts.unwrap_or(NO_HISTORY_ROW),
            bias_first: plan.biases.len() as u32,
            bias_count: biases.len() as u32,
            ..params(&self.request.sampling, self.seed)
        });
        plan.biases.extend(biases.iter().map(|&(token, bias)| LogitBias { token, bias }));
        self.last_sample = Some((plan.step, row));
        self.pending += 1;
        let row = counts.filter(|_| begins)?;
        Some(Observed { row, tokens: self.tokens.clone(), prompt: self.prompt })
    }

    /// Tokens that are known or in flight.
    fn known(&self) -> usize {
        self.tokens.len() + self.pending
    }

    /// True while it has rows to compute: of the prompt, or for a token of the answer, if that may be read soon.
    fn has_rows(&self) -> bool {
        !self.paused && (self.computed < self.prompt || self.known() < self.end)
    }

    /// The next token is sampled from the row at this position.
    fn samples_at(&self, position: usize) -> bool {
        position + 1 == self.known() && self.known() < self.end
    }

    /// The row at this position tells a prompt token's log-probability.
    fn scores_at(&self, position: usize) -> bool {
        self.untold.contains(&(position + 1))
    }

    /// Shares the blocks that are full and known. `completed`: positions that completed steps have computed, not those in flight,
    /// which may fail.
    fn publish(&mut self, completed: usize) {
        let Some(blocks) = &self.blocks else { return };
        let (full, _) = self.tokens[..completed.min(self.tokens.len())].as_chunks::<BLOCK_TOKENS>();
        for tokens in full.iter().skip(self.published.blocks()) {
            blocks.publish(&mut self.published, tokens);
        }
    }
}

/// Sampling parameters as the device takes them, those of a step left at zero.
fn params(sampling: &Sampling, seed: u64) -> SampleParams {
    SampleParams {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        // 0 keeps the most likely token, as the least number above it does.
        top_p: sampling.top_p.max(f32::MIN_POSITIVE),
        min_p: sampling.min_p,
        repetition: sampling.repetition_penalty,
        presence: sampling.presence_penalty,
        frequency: sampling.frequency_penalty,
        seed_low: seed as u32,
        seed_high: (seed >> 32) as u32,
        ..SampleParams::GREEDY
    }
}

/// A seed for a request that brought none.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
pub(crate) mod tests;
