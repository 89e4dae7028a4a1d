//! Where a load is asked.

mod endpoint;
mod engine;
mod sse;
mod words;

pub(crate) use endpoint::Served;
pub use endpoint::{Api, ApiKey, Endpoint, EndpointOptions};
pub(crate) use engine::{InProcess, Sample, ask, prompt};

use crate::error::BenchError;
use std::time::Instant;

/// Something that answers prompts. Calls block.
pub(crate) trait Target: Sync {
    /// A conversation as far as it has come.
    type Talk;

    /// Begins the conversation with this number.
    fn begin(&self, conversation: usize) -> Self::Talk;

    /// Adds the new tokens of its turn to the conversation: the next prompt ends with them.
    fn say(&self, talk: &mut Self::Talk, turn: usize, tokens: usize);

    /// Asks for an answer of so many tokens, and adds it to the conversation.
    fn ask(&self, talk: &mut Self::Talk, max_tokens: usize) -> Result<Answer, Fault>;
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Tokens of the whole prompt; `None` where nobody tells.
    pub prompt_tokens: Option<usize>,
    /// Tokens of the answer.
    pub tokens: usize,
    /// Whether the tokens were told; they are the pieces that came otherwise.
    pub is_told: bool,
    /// Arrival of each piece, which is a token or a few; at least one.
    pub times: Vec<Instant>,
    /// Time from the first step of the prompt to the first token, s; `None` where nobody tells.
    pub prefill_s: Option<f64>,
    /// Time from the first to the last token, s.
    pub decode_s: f64,
    /// Token ids or text, by which answers are compared.
    pub content: Vec<u8>,
}

/// Failure of a request.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Ends the run.
    Ends(BenchError),
    /// Is counted; the run goes on.
    Counts(Failure),
}

/// Cause that failures are counted by, and what else is known of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub cause: String,
    pub detail: String,
}

impl Failure {
    pub(crate) fn new(cause: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { cause: cause.into(), detail: detail.into() }
    }
}

/// Stream of a seed's random numbers for the new tokens of a turn. The first turns have the numbers of their conversations.
fn stream(conversation: usize, turn: usize) -> u64 {
    conversation as u64 | (turn as u64) << 32
}

/// The stream for the first part that all prompts share.
const PREFIX: u64 = u64::MAX - 1;
