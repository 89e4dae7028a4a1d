//! Targets of a load.

mod endpoint;
mod engine;
mod sse;
mod words;

pub(crate) use endpoint::Served;
pub use endpoint::{Api, ApiKey, Endpoint, EndpointOptions};
pub(crate) use engine::{InProcess, Sample, ask, prompt};

use crate::error::BenchError;
use crate::speed::Part;
use std::time::{Duration, Instant};

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
    /// True if the tokens were told; they are the pieces that came otherwise.
    pub is_told: bool,
    /// True if it ended because it had the tokens that were asked for, as its `finish_reason` says; `None` where none was told.
    pub ended_by_length: Option<bool>,
    /// Arrival of each piece, which is a token or a few; at least one.
    pub times: Vec<Instant>,
    /// Tokens of the prompt that were computed, and the time from the first step that did to the first token; `None` where nobody tells.
    pub computed: Option<(usize, Duration)>,
    /// Token ids or text, by which answers are compared.
    pub content: Vec<u8>,
}

/// Pieces from which on the size of the first one matters little.
const MANY_PIECES: usize = 8;

impl Answer {
    /// True if it ended before the tokens that were asked for. Pieces are fewer than tokens, so that where nobody told the tokens, the reason
    /// for its end counts.
    pub(crate) fn ended_before(&self, max_tokens: usize) -> bool {
        match self.ended_by_length {
            Some(by_length) if !self.is_told => !by_length,
            _ => self.tokens < max_tokens,
        }
    }

    /// The work up to the first token; `None` where nobody tells.
    pub(crate) fn prefill(&self) -> Option<Part> {
        let ((tokens, took), to) = (self.computed?, *self.times.first()?);
        // A clock begins somewhere.
        let from = to.checked_sub(took).unwrap_or(to);
        Some(Part { tokens: tokens as f64, from, to })
    }

    /// The work from the first token to the last. The tokens of the first piece came before it: if it has more than one, they are taken to be as
    /// many as those of the others. `None` where the pieces are too few for that.
    pub(crate) fn decode(&self) -> Option<Part> {
        let (tokens, pieces) = (self.tokens, self.times.len());
        if tokens > 1 && pieces < tokens.min(MANY_PIECES) {
            return None;
        }
        let tokens = if tokens > 1 { tokens as f64 * (pieces - 1) as f64 / pieces as f64 } else { 0.0 };
        Some(Part { tokens, from: *self.times.first()?, to: *self.times.last()? })
    }
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
    /// Both as one line that is fit for a terminal: much of it is what a server said.
    pub(crate) fn new(cause: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { cause: printable(cause.into()), detail: printable(detail.into()) }
    }
}

/// Text without control characters: spaces are where white space was.
fn printable(text: String) -> String {
    let shown = |c: char| match c {
        c if !c.is_control() => c,
        c if c.is_whitespace() => ' ',
        _ => char::REPLACEMENT_CHARACTER,
    };
    text.chars().map(shown).collect()
}

/// Stream of a seed's random numbers for the new tokens of a turn. The first turns have the numbers of their conversations.
fn stream(conversation: usize, turn: usize) -> u64 {
    conversation as u64 | (turn as u64) << 32
}

/// The stream for the first part that all prompts share.
const PREFIX: u64 = u64::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_without_control_characters() {
        let failure = Failure::new("HTTP 500", "\u{1b}[2Jgone\r\n\u{7}é\u{9b}1m");
        assert_eq!(failure.detail, "\u{fffd}[2Jgone  \u{fffd}é\u{fffd}1m");
        assert!(!Failure::new("\u{1b}c", "").cause.contains('\u{1b}'));
    }

    #[test]
    fn decode_is_known_of_an_answer_in_many_pieces_or_in_one_a_token() {
        let start = Instant::now();
        for (tokens, pieces, decoded) in [
            (1, 1, Some(0.0)),
            (5, 5, Some(4.0)),
            (64, 16, Some(60.0)),
            (2, 3, Some(4.0 / 3.0)),
            (64, 1, None),
            (64, 7, None),
            (5, 4, None),
        ] {
            let times = (0..pieces).map(|i| start + Duration::from_secs(i)).collect();
            let answer = Answer {
                prompt_tokens: None,
                tokens,
                is_told: true,
                ended_by_length: None,
                times,
                computed: None,
                content: Vec::new(),
            };
            let decode = answer.decode();
            assert_eq!(decode.map(|part| part.tokens), decoded, "{tokens} tokens in {pieces} pieces");
            assert!(decode.is_none_or(|part| part.to - part.from == Duration::from_secs(pieces - 1)));
            assert_eq!(answer.prefill(), None);
        }
    }

    #[test]
    fn the_reason_for_its_end_says_whether_an_answer_in_pieces_ended_early() {
        for (is_told, ended_by_length, tokens, early) in [
            (true, Some(true), 4, true),
            (true, Some(false), 5, false),
            (true, None, 4, true),
            (false, Some(true), 2, false),
            (false, Some(false), 2, true),
            (false, Some(false), 5, true),
            (false, None, 4, true),
            (false, None, 5, false),
        ] {
            let times = vec![Instant::now()];
            let content = Vec::new();
            let answer =
                Answer { prompt_tokens: None, tokens, is_told, ended_by_length, times, computed: None, content };
            assert_eq!(answer.ended_before(5), early, "{answer:?}");
        }
    }

    #[test]
    fn prefill_has_the_tokens_that_were_computed_and_ends_with_the_first_token() {
        let (start, took) = (Instant::now() + Duration::from_secs(9), Duration::from_secs(2));
        let times = vec![start, start + took];
        let computed = Some((3, took));
        let answer = Answer {
            prompt_tokens: Some(40),
            tokens: 2,
            is_told: true,
            ended_by_length: None,
            times,
            computed,
            content: Vec::new(),
        };
        assert_eq!(answer.prefill(), Some(Part { tokens: 3.0, from: start - took, to: start }));
    }
}
