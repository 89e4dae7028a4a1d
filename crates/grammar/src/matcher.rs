//! One answer under a grammar.

use crate::error::{GrammarError, reason};
use llguidance::CancellationHandle;
use std::collections::VecDeque;
use std::fmt;

/// State of one answer: which tokens may come next.
pub struct Matcher {
    inner: llguidance::Matcher,
    vocab: usize,
    /// Tokens that are known to come, and not taken yet.
    forced: VecDeque<u32>,
}

/// Stops a matcher's work from another thread, for good.
#[derive(Debug, Clone)]
pub struct Canceler(CancellationHandle);

impl Canceler {
    /// Makes what the matcher does now, and every later call, an error.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

impl Matcher {
    pub(crate) fn new(grammar: &llguidance::Matcher, vocab: usize) -> Self {
        Self { inner: grammar.deep_clone().into_cancellable(), vocab, forced: VecDeque::new() }
    }

    /// Handle that stops its work from another thread.
    pub fn canceler(&self) -> Canceler {
        Canceler(self.inner.cancellation_handle().unwrap_or_default())
    }

    /// Takes a token that was chosen.
    ///
    /// # Errors
    /// The grammar does not allow it here. The matcher is of no use after any error.
    pub fn take(&mut self, token: u32) -> Result<(), GrammarError> {
        if self.forced.pop_front() != Some(token) {
            self.forced.clear();
        }
        if self.ended() {
            return match self.ends(token) {
                true => Ok(()),
                false => Err(GrammarError::Step { message: format!("token {token} came after the end") }),
            };
        }
        self.inner.consume_token(token).map_err(|e| GrammarError::step(&e))
    }

    /// Writes which tokens may come next, a bit each: token `i` is bit `i % 32` of word `i / 32`. End tokens may come where the text may
    /// end; nothing else, where it has ended. Bits beyond the vocabulary are 0.
    ///
    /// # Errors
    /// More work than a step may take, or a text that can neither go on nor end.
    ///
    /// # Panics
    /// `words` has no place for every token: it must be `vocab.div_ceil(32)` long.
    pub fn mask(&mut self, words: &mut [u32]) -> Result<(), GrammarError> {
        assert_eq!(words.len(), self.vocab.div_ceil(32), "words of a mask");
        words.fill(0);
        self.force()?;
        if let Some(&token) = self.forced.front() {
            words[token as usize / 32] |= 1 << (token % 32);
            return Ok(());
        }
        let mask = self.inner.compute_mask_or_eos().map_err(|e| GrammarError::step(&e))?;
        let mask = mask.as_slice();
        words.copy_from_slice(&mask[..words.len()]);
        Ok(())
    }

    /// Tokens that are all that can come next, as the tokenizer cuts their text. Empty where there is a choice, an end token among it.
    /// They are not taken yet.
    ///
    /// # Errors
    /// More work than a step may take.
    pub fn forced(&mut self) -> Result<Vec<u32>, GrammarError> {
        self.force()?;
        Ok(self.forced.iter().copied().collect())
    }

    /// Finds the forced tokens, once for all of a run: cutting a long text into tokens anew for each would take its square.
    fn force(&mut self) -> Result<(), GrammarError> {
        if self.forced.is_empty() && !self.ended() {
            self.forced = self.inner.compute_ff_tokens().into();
            if let Some(error) = self.inner.get_error() {
                return Err(GrammarError::Step { message: reason(&anyhow::Error::msg(error)) });
            }
        }
        Ok(())
    }

    /// True once the text is whole and nothing can be added, whether an end token has come or not.
    pub fn ended(&self) -> bool {
        self.inner.is_stopped() && self.inner.stop_reason().is_ok()
    }

    fn ends(&self, token: u32) -> bool {
        self.inner.tok_env().is_ok_and(|env| env.tok_trie().eos_tokens().contains(&token))
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher")
            .field("stop", &self.inner.stop_reason())
            .field("forced", &self.forced)
            .finish_non_exhaustive()
    }
}
