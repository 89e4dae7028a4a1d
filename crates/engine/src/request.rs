use crate::error::EngineError;
use mlx_serving_grammar::Grammar;
use mlx_serving_model::Pooling;
use mlx_serving_text::{OutputFormat, Segment, content};

/// Most alternatives that are reported beside a token.
pub const MAX_ALTERNATIVES: usize = 20;

/// Most logit biases of one request: a step has room for so many of each sequence.
pub const MAX_BIASES: usize = 1024;

/// Parameters by which tokens are chosen. [`Sampling::default`] is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Keep the k most likely; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of most likely tokens that reaches this probability; 1 keeps all, 0 the most likely one.
    pub top_p: f32,
    /// Keep tokens of at least this times the largest probability; 0 keeps all.
    pub min_p: f32,
    /// Weakens tokens of prompt and answer; 1 for none.
    pub repetition_penalty: f32,
    /// Weakens tokens of the answer, once each; 0 for none.
    pub presence_penalty: f32,
    /// Weakens tokens of the answer by their count; 0 for none.
    pub frequency_penalty: f32,
    /// Same seed and request, same answer. Without one, the engine draws one.
    pub seed: Option<u64>,
    /// Additions to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            logit_bias: Vec::new(),
        }
    }
}

impl Sampling {
    /// True if the choice depends on tokens seen before.
    pub fn penalizes(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// Refuses values outside their ranges.
    pub fn validate(&self, vocab: usize) -> Result<(), EngineError> {
        check("temperature", self.temperature, 0.0, 2.0)?;
        check("top_p", self.top_p, 0.0, 1.0)?;
        check("min_p", self.min_p, 0.0, 1.0)?;
        // Logits are divided by it: much smaller ones make them infinite.
        check("repetition_penalty", self.repetition_penalty, 0.01, 10.0)?;
        check("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        check("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        for &(token, bias) in &self.logit_bias {
            check("logit_bias", bias, -100.0, 100.0)?;
            if token as usize >= vocab {
                let message = format!("token {token} is outside the vocabulary of {vocab}");
                return Err(EngineError::invalid("logit_bias", message));
            }
        }
        Ok(())
    }
}

fn check(param: &'static str, value: f32, low: f32, high: f32) -> Result<(), EngineError> {
    if value >= low && value <= high {
        return Ok(());
    }
    Err(EngineError::invalid(param, format!("{param} is {value}; it must be at least {low} and at most {high}")))
}

/// One completion to compute.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// Parameters by which tokens are chosen.
    pub sampling: Sampling,
    /// Limit on the answer's tokens; without it, as many as the context holds.
    pub max_tokens: Option<usize>,
    /// End at any of these strings, which are not part of the answer.
    pub stop: Vec<String>,
    /// Go on at the model's end-of-sequence tokens.
    pub ignore_eos: bool,
    /// Report the log-probability of each token and of this many most likely alternatives.
    pub logprobs: Option<usize>,
    /// Report the same for the prompt's tokens. Only then may `max_tokens` be 0.
    pub prompt_logprobs: Option<usize>,
    /// Compute the prompt alone, and make its embedding of these hidden states: nothing is generated, whatever else is said of an answer.
    pub embed: Option<Pooling>,
    /// Requests share what is computed of a common beginning of their prompts only where their salts are equal: whatever else
    /// it depends on, or whoever must not learn of it, has a salt of its own.
    pub salt: u64,
    /// Tokens that may lie unread, at least 1: beyond them none is computed until the reader goes on, and the place in a step is
    /// others'. `None` computes on, until the answer is abandoned for what lies unread.
    pub read_ahead: Option<usize>,
    /// The answer begins a text of its own instead of going on where the prompt ends: the space that sentencepiece models put
    /// before a text's first word is left out.
    pub begins_text: bool,
    /// Markup by which the answer is divided into segments.
    pub format: OutputFormat,
    /// Grammar of the answer's content, in force once reasoning has ended.
    pub grammar: Option<Grammar>,
    /// Tokens of reasoning at most; then its end is written for the model.
    pub reasoning_budget: Option<usize>,
}

/// Reason for the end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended it, a stop string did, or all that was asked for is there.
    Stop,
    /// `max_tokens` or the context's end was reached.
    Length,
    /// The receiver went away.
    Canceled,
}

impl FinishReason {
    /// Name in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Canceled => "canceled",
        }
    }
}

/// Log-probability of a chosen token and of the most likely ones at its place, natural logarithm, before penalties and
/// temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// Log-probability of the chosen token.
    pub chosen: f32,
    /// The most likely tokens, most likely first.
    pub top: Vec<(u32, f32)>,
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenEvent {
    /// Its id.
    pub id: u32,
    /// Text that became final with it, by its kind: none while a character or a possible stop string is incomplete.
    pub segments: Vec<Segment>,
    /// Start of its own text in the answer, characters. Text that is held back counts.
    pub offset: usize,
    /// Log-probabilities, if the request asked for them.
    pub logprobs: Option<Logprobs>,
}

impl TokenEvent {
    /// Text for the reader.
    pub fn text(&self) -> String {
        content(&self.segments)
    }
}

/// One token of the prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptToken {
    /// Its id.
    pub id: u32,
    /// `None` for the first, which nothing predicts.
    pub logprobs: Option<Logprobs>,
}

/// Cost of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were found in the prefix cache.
    pub cached_tokens: usize,
    /// Tokens of the answer, the ending one included.
    pub completion_tokens: usize,
    /// Seconds from arrival to the first step that computed the prompt.
    pub queue_s: f64,
    /// Seconds from there to the first token.
    pub prefill_s: f64,
    /// Seconds from the first token to the last.
    pub decode_s: f64,
}

/// The end of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Reason for its end.
    pub reason: FinishReason,
    /// Stop string that ended it, if one did.
    pub stop: Option<String>,
    /// Text held back until the end, by its kind.
    pub segments: Vec<Segment>,
    /// Its cost.
    pub usage: Usage,
}

impl Finish {
    /// Text for the reader.
    pub fn text(&self) -> String {
        content(&self.segments)
    }
}

/// An item of a [`crate::Stream`]: the prompt or its embedding where these were asked for, tokens, then exactly one end.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A run of the prompt's tokens, in order; before any token of the answer, and only with [`Request::prompt_logprobs`].
    Prompt(Vec<PromptToken>),
    /// The embedding of the prompt, as wide as the model and not normalized; only with [`Request::embed`], and then all that comes before
    /// the end.
    Embedding(Vec<f32>),
    /// A token.
    Token(TokenEvent),
    /// The end.
    Finished(Finish),
    /// The end, in error; other requests go on.
    Failed(EngineError),
}

impl Event {
    /// True for the end of a stream.
    pub fn is_last(&self) -> bool {
        matches!(self, Event::Finished(_) | Event::Failed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_default_is_valid_and_free_of_penalties() {
        let sampling = Sampling::default();
        sampling.validate(10).unwrap();
        assert!(!sampling.penalizes());
    }

    #[test]
    fn values_out_of_range_name_the_parameter() {
        for (param, sampling) in [
            ("temperature", Sampling { temperature: -0.1, ..Sampling::default() }),
            ("temperature", Sampling { temperature: f32::NAN, ..Sampling::default() }),
            ("top_p", Sampling { top_p: -0.1, ..Sampling::default() }),
            ("min_p", Sampling { min_p: 1.5, ..Sampling::default() }),
            ("repetition_penalty", Sampling { repetition_penalty: 0.0, ..Sampling::default() }),
            ("presence_penalty", Sampling { presence_penalty: 2.5, ..Sampling::default() }),
            ("frequency_penalty", Sampling { frequency_penalty: -3.0, ..Sampling::default() }),
            ("logit_bias", Sampling { logit_bias: vec![(1, 101.0)], ..Sampling::default() }),
            ("logit_bias", Sampling { logit_bias: vec![(10, 1.0)], ..Sampling::default() }),
        ] {
            match sampling.validate(10) {
                Err(EngineError::Invalid { param: found, .. }) => assert_eq!(found, param),
                other => panic!("{param}: {other:?}"),
            }
        }
    }
}
