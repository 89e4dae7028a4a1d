//! One answer under a grammar.

use crate::error::GrammarError;
use llguidance::api::StopReason;
use llguidance::panic_utils::catch_unwind;
use llguidance::{CancellationHandle, TokenParser};
use std::collections::VecDeque;
use std::fmt;
use std::panic::AssertUnwindSafe;

/// Bytes of the lexer of one answer at most. It makes its states when they are first reached: those of JSON take less than one MiB.
const MAX_LEXER: usize = 32 << 20;

/// State of one answer: which tokens may come next.
pub struct Matcher {
    parser: TokenParser,
    cancellation: CancellationHandle,
    vocab: usize,
    /// Tokens that are known to come, and not taken yet.
    forced: VecDeque<u32>,
    /// Reason for which it is of no use any more.
    failed: Option<GrammarError>,
}

/// Stops a matcher's work from another thread, for good.
#[derive(Debug, Clone)]
pub struct Canceler(CancellationHandle);

impl Canceler {
    /// Makes what the matcher does now, and every later call, an error.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    pub(crate) fn is_canceled(&self) -> bool {
        self.0.is_cancelled()
    }
}

impl Matcher {
    pub(crate) fn new(mut parser: TokenParser, vocab: usize) -> Self {
        let cancellation = parser.enable_cancellation();
        Self { parser, cancellation, vocab, forced: VecDeque::new(), failed: None }
    }

    /// A matcher in the same state, which shares nothing with this one that either could spoil.
    pub(crate) fn another(&self) -> Self {
        let mut parser = self.parser.deep_clone();
        let cancellation = parser.enable_cancellation();
        Self { parser, cancellation, vocab: self.vocab, forced: self.forced.clone(), failed: self.failed.clone() }
    }

    /// Words of a mask.
    pub(crate) fn words(&self) -> usize {
        self.vocab.div_ceil(32)
    }

    /// Bytes that it takes, roughly, beside the rules that all matchers of a grammar share.
    pub(crate) fn bytes(&self) -> usize {
        /// Bytes of the parser's stacks for each byte of text, by measurement.
        const STACKS: usize = 100;
        self.parser.parser.lexer_stats().num_bytes + STACKS * self.parser.parser.get_bytes().len()
    }

    /// Handle that stops its work from another thread.
    pub fn canceler(&self) -> Canceler {
        Canceler(self.cancellation.clone())
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
        self.work(|parser| {
            anyhow::ensure!(parser.consume_token(token)? == 0, "it takes back what has been said");
            parser.check_stop().map(drop)
        })
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
        let mask = self.work(|parser| match parser.stop_reason() {
            StopReason::NotStopped => parser.compute_mask(),
            _ => Ok(parser.token_env.tok_trie().eos_token_set()),
        })?;
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
        // Those that are known must not hide that it is canceled.
        self.work(|_| Ok(()))?;
        if self.forced.is_empty() && !self.ended() {
            self.forced = self
                .work(|parser| {
                    let forced = parser.compute_ff_tokens();
                    // llguidance would hand out what it has found, and tell of the error when that is used up.
                    parser.parser.get_error().map_or(Ok(forced), |error| Err(anyhow::Error::msg(error.message())))
                })?
                .into();
        }
        Ok(())
    }

    /// Lets llguidance work. Its panics come as errors; so does a canceled matcher, or one that has grown too large. An error stays.
    fn work<T>(&mut self, work: impl FnOnce(&mut TokenParser) -> anyhow::Result<T>) -> Result<T, GrammarError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let parser = &mut self.parser;
        let done = catch_unwind(AssertUnwindSafe(|| work(parser))).map_err(|e| GrammarError::step(&e));
        let fault = |message: String| Err(GrammarError::Step { message });
        let done = match done {
            _ if self.cancellation.is_cancelled() => fault("operation cancelled".into()),
            Ok(_) if self.parser.parser.lexer_stats().num_bytes > MAX_LEXER => {
                fault(format!("its lexer takes more than {} MiB", MAX_LEXER >> 20))
            }
            done => done,
        };
        self.failed = done.as_ref().err().cloned();
        done
    }

    /// True once the text is whole and nothing can be added, whether an end token has come or not.
    pub fn ended(&self) -> bool {
        !self.cancellation.is_cancelled() && self.parser.stopped() && self.parser.stop_reason().is_ok()
    }

    fn ends(&self, token: u32) -> bool {
        self.parser.token_env.tok_trie().eos_tokens().contains(&token)
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher")
            .field("stop", &self.parser.stop_reason())
            .field("forced", &self.forced)
            .finish_non_exhaustive()
    }
}
