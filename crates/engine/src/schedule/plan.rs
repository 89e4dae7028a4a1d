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
    /// The row of logits, behind those, from which its next token is sampled, if its newest token is in this step.
    pub sample: Option<u32>,
    /// Most likely tokens to be told beside the sampled one, if its log-probability is asked for.
    pub sampled_top: Option<usize>,
    /// Tokens to be counted before the penalties of its first sampled token.
    pub observe: Option<Observed>,
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
}

impl Plan {
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
    /// Its rows of logits.
    pub(crate) fn logit_rows(&self) -> impl Iterator<Item = u32> {
        self.scores.clone().chain(self.sample)
    }
}
