//! Whole answers that are not yet sent to their clients: their bytes are bounded, one by one and in all.

use super::budget::{Budget, Share};
use crate::error::ApiError;
use mlx_serving_engine::{Logprobs, PromptToken, Request};
use std::sync::Arc;

/// Bytes of JSON around a token's text, and for each probability that is told with it: measured, and rounded up.
const TOKEN: usize = 8;
const PROBABILITY: usize = 80;

/// The bounds.
#[derive(Debug)]
pub(crate) struct Unread {
    all: Arc<Budget>,
    one: usize,
}

impl Unread {
    pub(crate) fn new(one: usize, all: usize) -> Self {
        Self { all: Budget::new(all), one: one.min(all) }
    }

    /// Refuses new work while too many bytes wait for their clients.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        if self.all.over_half() { Err(ApiError::unread()) } else { Ok(()) }
    }

    /// Refuses requests whose whole answer could not be held; `param` is the client's name for the limit on its tokens.
    pub(crate) fn fits(&self, requests: &[Request], param: &'static str) -> Result<(), ApiError> {
        let bytes = |r: &Request| {
            // Who sets no limit means few tokens more often than all that the context holds.
            let tokens = r.max_tokens.unwrap_or(0);
            let prompt = r.prompt_logprobs.map_or(0, |top| r.prompt.len().saturating_mul(weight(Some(top), 0)));
            tokens.saturating_mul(weight(r.logprobs, 0)).saturating_add(prompt)
        };
        let bytes = requests.iter().map(bytes).fold(0, usize::saturating_add);
        self.holds(bytes, param, "ask for fewer tokens, choices or logprobs, or stream it")
    }

    /// Refuses a whole answer of so many bytes, if it could not be held; `param` is what asks for so many, `remedy` what would help.
    pub(crate) fn holds(&self, bytes: usize, param: &'static str, remedy: &str) -> Result<(), ApiError> {
        if bytes <= self.one {
            return Ok(());
        }
        let (bytes, most) = (bytes.div_ceil(1 << 20), self.one >> 20);
        let message = format!("the answer may take {bytes} MiB and one takes at most {most}; {remedy}");
        Err(ApiError::invalid(param, message))
    }

    /// The charge of a new answer; `param` is the client's name for the limit on its tokens.
    pub(crate) fn charge(&self, param: &'static str) -> Arc<Charge> {
        Arc::new(Charge { share: self.all.share(), one: self.one, param })
    }
}

/// The bytes of one answer, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    share: Share,
    one: usize,
    param: &'static str,
}

impl Charge {
    /// Counts one more piece of the answer, of so many bytes of text.
    pub(crate) fn text(&self, text: usize, logprobs: Option<&Logprobs>) -> Result<(), ApiError> {
        self.grow(weight(logprobs.map(|l| l.top.len()), text))
    }

    /// Counts tokens of the prompt that the answer tells of.
    pub(crate) fn prompt(&self, tokens: &[PromptToken]) -> Result<(), ApiError> {
        self.grow(tokens.iter().map(|token| weight(token.logprobs.as_ref().map(|l| l.top.len()), 0)).sum())
    }

    fn grow(&self, bytes: usize) -> Result<(), ApiError> {
        if self.share.bytes() + bytes > self.one {
            return Err(ApiError::too_long(self.param, self.one));
        }
        if self.share.grow(bytes) { Ok(()) } else { Err(ApiError::unread()) }
    }

    /// Bytes counted so far.
    pub(crate) fn bytes(&self) -> usize {
        self.share.bytes()
    }

    /// The answer has been written: it has so many bytes.
    pub(crate) fn settle(&self, bytes: usize) {
        self.share.settle(bytes);
    }
}

fn weight(logprobs: Option<usize>, text: usize) -> usize {
    let alternatives = logprobs.map_or(0, |top| top.saturating_add(1));
    (text + TOKEN).saturating_add(alternatives.saturating_mul(PROBABILITY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_cannot_be_held_are_refused_before_they_are_computed() {
        let unread = Unread::new(1 << 20, 4 << 20);
        let request = |max_tokens, logprobs| Request { max_tokens: Some(max_tokens), logprobs, ..Request::default() };
        assert!(unread.fits(&[request(10_000, None)], "max_tokens").is_ok());
        assert!(unread.fits(&[request(400, Some(20))], "max_tokens").is_ok());
        assert!(unread.fits(&vec![request(400, Some(20)); 16], "max_tokens").is_err());
        let prompt = Request { prompt: vec![1; 100_000], prompt_logprobs: Some(5), ..request(1, None) };
        assert!(unread.fits(&[prompt], "max_tokens").is_err());
        assert!(unread.fits(&[request(usize::MAX, Some(20)), request(usize::MAX, None)], "max_tokens").is_err());
        assert!(unread.fits(&[request(1, Some(usize::MAX)), request(4, Some(usize::MAX - 1))], "max_tokens").is_err());
    }

    #[test]
    fn what_is_left_behind_is_bounded_one_by_one_and_in_all() {
        let unread = Unread::new(1000, 1500);
        let text = 500 - TOKEN;
        let (a, b) = (unread.charge("max_tokens"), unread.charge("max_tokens"));
        assert!(a.text(text, None).is_ok() && unread.check().is_ok());
        assert!(a.text(text, None).is_ok());
        assert!(a.text(text, None).is_err(), "one answer");
        assert!(unread.check().is_err(), "new work");
        assert!(b.text(text, None).is_ok());
        let c = unread.charge("max_tokens");
        assert!(c.text(text, None).is_err(), "all of them");
        drop(a);
        assert!(unread.check().is_ok() && c.text(text, None).is_ok());
    }
}
