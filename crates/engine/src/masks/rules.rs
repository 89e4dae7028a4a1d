use mlx_serving_grammar::{Grammar, GrammarError, Matcher};
use std::fmt;

/// Rules for an answer's tokens, from which every answer begins anew.
pub(crate) trait Rules: fmt::Debug + Send + Sync {
    /// The state of an answer that begins. May take long.
    fn begin(&self) -> Box<dyn Matching>;
}

/// State of one answer under its rules. Of no use after an error.
pub(crate) trait Matching: Send {
    /// Takes the next token.
    fn take(&mut self, token: u32) -> Result<(), GrammarError>;
    /// Sets the bits of the tokens that may come next, and no others; end tokens may where the text may end.
    fn mask(&mut self, words: &mut [u32]) -> Result<(), GrammarError>;
    /// Tokens that are all that may come next, one after the other. The mask then allows the first of them only.
    fn forced(&mut self) -> Result<Vec<u32>, GrammarError>;
    /// Handle that stops its work from another thread, for good.
    fn canceler(&self) -> Cancel;
}

/// Stops work on another thread.
pub(crate) type Cancel = Box<dyn FnOnce() + Send>;

impl Rules for Grammar {
    fn begin(&self) -> Box<dyn Matching> {
        Box::new(self.matcher())
    }
}

impl Matching for Matcher {
    fn take(&mut self, token: u32) -> Result<(), GrammarError> {
        self.take(token)
    }

    fn mask(&mut self, words: &mut [u32]) -> Result<(), GrammarError> {
        self.mask(words)
    }

    fn forced(&mut self) -> Result<Vec<u32>, GrammarError> {
        self.forced()
    }

    fn canceler(&self) -> Cancel {
        let canceler = self.canceler();
        Box::new(move || canceler.cancel())
    }
}
