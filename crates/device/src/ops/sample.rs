use super::check::{holds, require};
use crate::{Buffer, Result};

/// Choice of one sequence's next token. The order: repetition, presence and frequency penalties, logit biases,
/// temperature; tokens that its mask forbids are left out, whatever their logits have become; then a token survives if it passes top-k, top-p and min-p, each taken over the whole tempered distribution of what is left;
/// among the survivors the Gumbel-max trick draws with a counter-based generator (Threefry-2x32, Salmon et al. 2011).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct SampleParams {
    /// Below [`MIN_TEMPERATURE`] the most likely token is taken (the smallest id among equals) and the filters are ignored.
    pub temperature: f32,
    /// Keeps the k most likely tokens; 0 for all.
    pub top_k: u32,
    /// Keeps the smallest set of most likely tokens whose probability reaches this; 1 for all.
    pub top_p: f32,
    /// Keeps tokens with at least this times the largest probability; 0 for all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen in prompt or answer; 1 for none.
    pub repetition: f32,
    /// Subtracted once from the logits of tokens in the answer.
    pub presence: f32,
    /// Subtracted from the logits of tokens in the answer, as often as they occurred.
    pub frequency: f32,
    /// Key of the generator, low word.
    pub seed_low: u32,
    /// Key of the generator, high word.
    pub seed_high: u32,
    /// Position of the token to choose: the generator's counter, so that a draw depends on nothing else.
    pub position: u32,
    /// Row of the sequence in [`Sample::history`], or [`NO_HISTORY_ROW`].
    pub history_row: u32,
    /// First entry in [`Sample::biases`].
    pub bias_first: u32,
    /// Number of entries.
    pub bias_count: u32,
    /// Row of the sequence's allowed tokens in [`Sample::masks`], or [`NO_MASK_ROW`].
    pub mask_row: u32,
}

/// The lowest temperature at which tokens are drawn. Logits are divided by it, and below 1e-37 even small ones leave the range of
/// `f32`; but long before that a draw means nothing: at 1e-6 the last bit of a logit of 16 already outweighs a factor of six in
/// probability, so that what decides is rounding. The floor keeps every finite logit below 3e32 finite.
pub const MIN_TEMPERATURE: f32 = 1e-6;

impl SampleParams {
    /// The most likely token, whatever its row holds.
    pub const GREEDY: SampleParams = SampleParams {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition: 1.0,
        presence: 0.0,
        frequency: 0.0,
        seed_low: 0,
        seed_high: 0,
        position: 0,
        history_row: NO_HISTORY_ROW,
        bias_first: 0,
        bias_count: 0,
        mask_row: NO_MASK_ROW,
    };

    /// True if the token is drawn; false if the most likely one is taken.
    pub fn draws(&self) -> bool {
        self.temperature >= MIN_TEMPERATURE
    }
}

/// [`SampleParams::history_row`] of a sequence without penalties.
pub const NO_HISTORY_ROW: u32 = u32::MAX;

/// [`SampleParams::mask_row`] of a sequence that may choose any token.
pub const NO_MASK_ROW: u32 = u32::MAX;

/// An addition to one token's logit. −∞ forbids it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct LogitBias {
    /// Token id.
    pub token: u32,
    /// Added to the token's logit.
    pub bias: f32,
}

/// Writes one sequence's row of the history that penalties read, from its tokens so far. An entry has bit 31 set for a token of
/// the prompt and counts the token's occurrences in the answer below it.
#[derive(Debug, Clone)]
pub struct Observe {
    /// u32 `[history rows][vocabulary]`.
    pub history: Buffer,
    /// Vocabulary.
    pub vocab: usize,
    /// The row to write; what it held is lost.
    pub history_row: usize,
    /// u32 `[count]`: prompt, then answer so far.
    pub tokens: Buffer,
    /// Number of `tokens`.
    pub count: usize,
    /// Number of `tokens` that belong to the prompt.
    pub prompt: usize,
}

impl Observe {
    pub(super) fn validate(&self) -> Result<()> {
        holds("observe history", &self.history, (self.history_row + 1) * self.vocab)?;
        require(self.prompt <= self.count, || {
            format!("observe: {} of {} tokens are the prompt's", self.prompt, self.count)
        })?;
        holds("observe tokens", &self.tokens, self.count)
    }
}

/// Chooses one token for each row of logits and notes it in the history.
#[derive(Debug, Clone)]
pub struct Sample {
    /// f32 `[rows][vocab]`.
    pub logits: Buffer,
    /// Vocabulary.
    pub vocab: usize,
    /// Rows.
    pub rows: usize,
    /// [`SampleParams`] `[rows]`.
    pub params: Buffer,
    /// [`LogitBias`], as many as the params refer to.
    pub biases: Buffer,
    /// u32 `[history rows][vocab]`; needed if any row has one.
    pub history: Option<Buffer>,
    /// u32 `[mask rows][`[`Sample::mask_words`]`]`: bit t % 32 of word t / 32 is set where token t is allowed; bits beyond the vocabulary mean
    /// nothing. Needed if any row has one. May be the host's to write until a point that the encoder waits for before this op.
    pub masks: Option<Buffer>,
    /// u32 `[rows]`: the chosen tokens; `u32::MAX` where nothing is left to choose: no logit is finite, or the mask allows none that is.
    pub out: Buffer,
}

impl Sample {
    /// Words of a row of [`Sample::masks`].
    pub const fn mask_words(vocab: usize) -> usize {
        vocab.div_ceil(32)
    }

    pub(super) fn buffers(&self) -> Vec<&Buffer> {
        let always = [&self.logits, &self.params, &self.biases, &self.out];
        always.into_iter().chain(&self.history).chain(&self.masks).collect()
    }

    pub(super) fn validate(&self) -> Result<()> {
        require(self.rows > 0 && self.vocab > 0, || "sample: nothing to do".into())?;
        holds("sample logits", &self.logits, self.rows * self.vocab)?;
        holds("sample params", &self.params, self.rows * (size_of::<SampleParams>() / 4))?;
        self.masks.iter().try_for_each(|masks| holds("sample masks", masks, 0))?;
        holds("sample out", &self.out, self.rows)
    }
}
