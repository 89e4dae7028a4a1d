use crate::kv::block_pool::Moves;
use crate::request::Logprobs;
use mlx_serving_device::ops::{LogitBias, SampleParams};
use mlx_serving_model::inputs::Sequences;
use std::ops::Range;

/// Bounds of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepLimits {
    /// Rows of one step: decode rows first, then chunks of prompts.
    pub rows: usize,
    /// Sequences that run at once, and rows of a step that may have logits.
    pub sequences: usize,
}

/// Decision about the next step.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and a box would be allocated each step")]
pub(crate) enum Next {
    /// Encode this.
    Step(Plan),
    /// Complete the steps in flight first: a decision depends on them.
    Drain,
    /// Nothing to do.
    Idle,
}

/// A step, with all that is needed to encode it.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Number of the step.
    pub step: u64,
    /// The rows of its sequences. A token is sampled from each row of logits; those of rows that score are not looked at.
    pub batch: Sequences,
    /// Parameters of each row of logits.
    pub params: Vec<SampleParams>,
    /// Rows with logits that may choose allowed tokens only, with their parameters: until the plan is [`Self::sealed`], apart.
    pub masked: Vec<(u32, SampleParams)>,
    /// Rows of logits at the end that have masks. Sampled tokens of masked rows fill their places from the last one down, those of others
    /// from the first one up, so that each knows its place before all rows are known. The step's masks are in the order of joining.
    pub masks: usize,
    /// Logit biases, to which the parameters refer.
    pub biases: Vec<LogitBias>,
    pub parts: Vec<Part>,
    /// A row refers to the previous step's sampled tokens.
    pub continues: bool,
    /// Blocks that move before it.
    pub moves: Moves,
}

/// One sequence's part of a step.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The sequence.
    pub id: u64,
    /// Its rows of logits that score tokens of its prompt, in order.
    pub scores: Range<u32>,
    /// The tokens that they score.
    pub scored: Vec<u32>,
    /// Most likely tokens to be told beside each of them.
    pub scored_top: usize,
    /// Place of its next token among the sampled ones, if its newest token is in this step. Without a mask it is the row of logits, too, the
    /// one behind those.
    pub sample: Option<u32>,
    /// Row of its mask, if that token is chosen among allowed ones only.
    pub mask: Option<u32>,
    /// Most likely tokens to be told beside the sampled one, if its log-probability is asked for.
    pub sampled_top: Option<usize>,
    /// Tokens to be counted before the penalties of its first sampled token.
    pub observe: Option<Observed>,
    /// Rows of the step whose hidden states are read.
    pub hidden: Option<Range<usize>>,
}

/// Tokens of a sequence that penalizes, as far as they are known when it gets a row of the history.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    /// The row.
    pub row: u32,
    pub tokens: Vec<u32>,
    /// The prompt's tokens among them.
    pub prompt: usize,
}

/// Results of a completed step for one of its parts.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// Log-probabilities of the scored tokens.
    pub scores: Vec<Logprobs>,
    /// The sampled token, and its log-probability if it is asked for.
    pub sampled: Option<(u32, Option<Logprobs>)>,
    /// Hidden states of the rows that are read, f32 `[rows][width]`.
    pub hidden: Option<Vec<f32>>,
}

impl Plan {
    /// Rows with logits so far.
    pub(crate) fn logit_count(&self) -> usize {
        self.batch.logit_rows.len() + self.masked.len()
    }

    /// Samples from a row. Returns the place of the sampled token and the row of its mask, if it has one; `places` is how many there are.
    pub(crate) fn sample(&mut self, row: u32, masked: bool, params: SampleParams, places: usize) -> (u32, Option<u32>) {
        if !masked {
            self.batch.logit_rows.push(row);
            self.params.push(params);
            return (self.batch.logit_rows.len() as u32 - 1, None);
        }
        let mask_row = self.masked.len() as u32;
        self.masked.push((row, SampleParams { mask_row, ..params }));
        (places as u32 - 1 - mask_row, Some(mask_row))
    }

    /// The plan, to which nothing is added any more.
    pub(crate) fn sealed(mut self) -> Self {
        self.masks = self.masked.len();
        for (row, params) in std::mem::take(&mut self.masked).into_iter().rev() {
            self.batch.logit_rows.push(row);
            self.params.push(params);
        }
        self
    }

    /// The row of logits from which a part's next token is sampled, once the plan is sealed.
    pub(crate) fn logit_row(&self, part: &Part) -> Option<u32> {
        part.mask.map_or(part.sample, |mask| Some(self.batch.logit_rows.len() as u32 - 1 - mask))
    }

    /// Each part with the number of its sequence's positions that are computed once the step has completed.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (&Part, usize)> {
        self.parts.iter().zip(self.batch.spans.iter().map(|span| (span.start + span.rows) as usize))
    }

    /// The host reads its logits.
    pub(crate) fn reads_logits(&self) -> bool {
        self.parts.iter().any(|part| !part.scores.is_empty() || part.sample.is_some() && part.sampled_top.is_some())
    }
}

impl Part {
    /// Its places among the sampled tokens.
    pub(crate) fn places(&self) -> impl Iterator<Item = u32> {
        self.scores.clone().chain(self.sample)
    }
}
