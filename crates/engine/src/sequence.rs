use crate::events::Sender;
use crate::kv::block_pool::{BlockPool, BlockTable};
use crate::kv::prefix::Chain;
use crate::masks::board::Order;
use crate::masks::makers::Makers;
use crate::request::{Request, Sampling};
use crate::schedule::history::{HistoryRow, HistoryRows};
use crate::schedule::plan::{Observed, Part, Plan, StepLimits};
use crate::sequence::constraint::Constraint;
use crate::shared::{Arrival, Live};
use mlx_serving_device::ops::{LogitBias, NO_HISTORY_ROW, SAMPLED, SampleParams};
use mlx_serving_model::BLOCK_TOKENS;
use mlx_serving_text::{AnswerText, Tokenizer};
use pooler::Pooler;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

mod answer;
mod constraint;
mod opening;
mod pooler;

/// Facts that all sequences of an engine share.
pub(crate) struct Terms {
    pub tokenizer: Tokenizer,
    /// Tokens that end an answer.
    pub eos: Arc<[u32]>,
    pub max_context: usize,
    /// Width of a hidden state.
    pub width: usize,
    /// Threads that make masks.
    pub makers: Rc<Makers>,
}

/// A request that runs or waits: its tokens, how far they are computed, and the answer as far as it is sent.
pub(crate) struct Sequence {
    id: u64,
    /// Without its prompt, which is the head of `tokens`.
    request: Request,
    eos: Arc<[u32]>,
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
    /// Place of the first of the tokens that were forced last.
    forced: usize,
    /// Tokens of the prompt whose log-probabilities are to be told still; those of each are had from the position before it.
    untold: Range<usize>,
    /// Pooling of the prompt's hidden states, if its embedding is all that is asked for.
    pooler: Option<Pooler>,
    /// Hidden states of a step in flight are to be read for it.
    reading: bool,
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
    /// Its grammar and its reasoning budget, if it has one of them.
    constraint: Option<Constraint>,
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
        let Arrival { mut request, rules, stops, events, live, at } = arrival;
        let tokens = std::mem::take(&mut request.prompt);
        let prompt = tokens.len();
        let continues = (!request.begins_text).then_some(&*tokens);
        let text = AnswerText::new(&terms.tokenizer, continues, stops, &request.format);
        let constraint = Constraint::new(rules, &request, prompt, &text, terms);
        Self {
            id,
            eos: terms.eos.clone(),
            seed: request.sampling.seed.unwrap_or_else(random_seed),
            prompt,
            end: match request.embed {
                Some(_) => prompt,
                None => (prompt + request.max_tokens.unwrap_or(usize::MAX / 2)).min(terms.max_context),
            },
            computed: 0,
            pending: 0,
            forced: usize::MAX,
            untold: 0..if request.prompt_logprobs.is_some() { prompt } else { 0 },
            pooler: request.embed.map(|pooling| Pooler::new(pooling, prompt, terms.width)),
            reading: false,
            last_sample: None,
            blocks: None,
            published: Chain::new(request.salt),
            restore: true,
            cached: None,
            history: None,
            retries: 0,
            text,
            constraint,
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

    /// Steps that may be in flight beyond the one that it waits for. None where log-probabilities are read from a step's logits, or
    /// hidden states from its rows, which the next step overwrites. One where any token may be its last, so that no more than one row
    /// is discarded. One that is paused joins no step.
    pub(crate) fn lookahead(&self) -> usize {
        if self.paused {
            usize::MAX
        } else if self.pooler.is_some() {
            if self.reading { 0 } else { usize::MAX }
        } else if self.request.logprobs.is_some() || !self.untold.is_empty() {
            0
        } else if !self.request.ignore_eos || !self.request.stop.is_empty() || self.constraint.is_some() {
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

    /// Its next row is its newest token, and the token after it is whatever the model likes.
    pub(crate) fn decodes_freely(&self) -> bool {
        self.decodes() && !self.masks()
    }

    /// Takes the blocks that its next rows need beyond those that it has: one for a row, several where tokens were forced. False when there
    /// are too few.
    pub(crate) fn make_room(&mut self) -> bool {
        let (has_rows, last) = (self.has_rows(), self.computed.max(self.tokens.len() - 1));
        let Some(blocks) = self.blocks.as_mut().filter(|_| has_rows) else { return true };
        while last >= blocks.room() {
            if !blocks.grow() {
                return false;
            }
        }
        true
    }

    /// Takes blocks for all known tokens, cached ones as far as there are any. `None` if there are not enough.
    pub(crate) fn admit(&mut self, pool: &BlockPool) -> Option<Admitted> {
        // What is found cached has no logits and no hidden states: only positions for which these have served are taken from there.
        let served = match &self.pooler {
            Some(pooler) => pooler.served(),
            None if self.untold.is_empty() => self.tokens.len(),
            None => self.untold.start,
        };
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
        self.reading = false;
        // Others may need it meanwhile; and after a failure it may count a token that was never sent.
        self.history = None;
    }

    /// Gives up what steps have computed that failed. Returns how often that has happened, this time included if it `counts`.
    pub(crate) fn reset(&mut self, counts: bool) -> u32 {
        self.release();
        self.pending = 0;
        self.constraint.iter_mut().for_each(Constraint::reset);
        // A restored block may be what failed it.
        self.restore = false;
        self.retries += u32::from(counts);
        self.retries
    }

    /// Adds as many of its rows to a step as there is room for. If it is `paced`, forced tokens come one a step, as those that are sampled.
    pub(crate) fn join(&mut self, plan: &mut Plan, limits: StepLimits, history: &HistoryRows, paced: bool) {
        let Some(blocks) = &self.blocks else { return };
        let (first_row, start) = (plan.batch.tokens.len(), self.computed);
        let first_logits = plan.batch.logit_rows.len();
        let (most, masked) = (limits.sequences, self.masks());
        // The token before the forced ones was sampled.
        let alone = paced && start + 1 >= self.forced;
        let (mut rows, mut scored, mut newest) = (0, Vec::new(), None);
        if start < self.tokens.len() {
            for position in start..self.tokens.len() {
                let scores = self.scores_at(position);
                let logits = scores || self.samples_at(position);
                let row = first_row + rows;
                if row == limits.rows || logits && plan.logit_count() == most {
                    break;
                }
                if scores {
                    plan.batch.logit_rows.push(row as u32);
                    scored.push(self.tokens[position + 1]);
                }
                rows += 1;
                if alone {
                    break;
                }
            }
        } else if let Some((step, sample)) = self.last_sample
            && step + 1 == plan.step
            && first_row < limits.rows
        {
            // Its newest token is on the device still: usable if the very last step sampled it.
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
        let hidden = self.pooler.as_ref().map_or(0..0, |pooler| pooler.wanted(start..start + rows));
        self.reading = !hidden.is_empty();
        let mut part = Part {
            id: self.id,
            scores,
            scored,
            scored_top: self.request.prompt_logprobs.unwrap_or(0),
            sample: None,
            mask: None,
            sampled_top: self.request.logprobs,
            observe: None,
            hidden: self.reading.then(|| first_row + hidden.start - start..first_row + hidden.end - start),
        };
        if self.samples_at(self.computed - 1) {
            part.observe = self.observe(history);
            let params = self.params(plan);
            let (place, mask) = plan.sample((first_row + rows - 1) as u32, masked, params, most);
            (part.sample, part.mask) = (Some(place), mask);
            self.last_sample = Some((plan.step, place));
            self.pending += 1;
        }
        plan.parts.push(part);
    }

    /// The first time that it samples and penalizes it gets a row of the history, for which its tokens are to be counted. They are all known
    /// then: they come from a prompt, or some were forced, or it is computed again.
    fn observe(&mut self, history: &HistoryRows) -> Option<Observed> {
        if !self.request.sampling.penalizes() || self.history.is_some() {
            return None;
        }
        self.history = history.take();
        let row = self.history.as_ref()?.number();
        Some(Observed { row, tokens: self.tokens.clone(), prompt: self.prompt })
    }

    /// Parameters of its next token, whose biases are added to the plan's.
    fn params(&self, plan: &mut Plan) -> SampleParams {
        let biases = &self.request.sampling.logit_bias;
        let bias_first = plan.biases.len() as u32;
        plan.biases.extend(biases.iter().map(|&(token, bias)| LogitBias { token, bias }));
        SampleParams {
            position: self.computed as u32,
            history_row: self.history.as_ref().map_or(NO_HISTORY_ROW, HistoryRow::number),
            bias_first,
            bias_count: biases.len() as u32,
            ..params(&self.request.sampling, self.seed)
        }
    }

    /// Takes the order for the mask of the token that it samples in the newest step.
    pub(crate) fn accept(&mut self, order: Order) {
        let place = self.known() - 1;
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(order, place, &self.tokens);
        }
    }

    /// Its next token is chosen among allowed ones only.
    fn masks(&self) -> bool {
        self.constraint.as_ref().is_some_and(Constraint::masks)
    }

    /// Tokens that are known or in flight.
    fn known(&self) -> usize {
        self.tokens.len() + self.pending
    }

    /// True while it has rows to compute: of the prompt, or for a token of the answer, if that may be read soon.
    fn has_rows(&self) -> bool {
        let holds = self.constraint.as_ref().is_some_and(|constraint| constraint.holds(self.pending));
        !self.paused && !holds && (self.computed < self.prompt || self.known() < self.end)
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
