//! The text of one answer, as its tokens come.

use super::stop::StopMatcher;
use crate::detokenizer::Detokenizer;
use crate::error::TextError;
use crate::tokenizer::Tokenizer;

/// Turns an answer's tokens into the text that a client gets: whole characters, up to the first stop string, without special
/// tokens. Stop strings are searched for in the text *with* special tokens, so that one may be or contain `<|im_end|>`.
#[derive(Debug, Clone)]
pub struct AnswerText {
    tokenizer: Tokenizer,
    detokenizer: Detokenizer,
    stops: StopMatcher,
    characters: usize,
    stopped: bool,
}

/// Effect of one token on an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AnswerStep {
    /// Text that became final.
    pub text: String,
    /// Start of the token's own text, in characters of the answer: those of earlier tokens, held back for a stop string or not.
    /// The tokens of one character share its place; one that no token finishes is a U+FFFD at its own.
    pub offset: usize,
    /// True once a stop string is complete: the answer ends.
    pub stopped: bool,
}

impl AnswerText {
    /// An answer that continues `prompt` or, without one, begins a text: sentencepiece models then lose the space before
    /// their first word.
    #[must_use]
    pub fn new(tokenizer: &Tokenizer, prompt: Option<&[u32]>, stops: StopMatcher) -> Self {
        let detokenizer = match prompt {
            Some(prompt) => Detokenizer::after(tokenizer, true, prompt),
            None => Detokenizer::new(tokenizer, true),
        };
        Self { tokenizer: tokenizer.clone(), detokenizer, stops, characters: 0, stopped: false }
    }

    /// Takes the next token.
    ///
    /// # Errors
    /// [`TextError::Decode`] when the decoder that `tokenizer.json` configures fails.
    pub fn push(&mut self, id: u32) -> Result<AnswerStep, TextError> {
        if self.tokenizer.is_special(id) {
            return Ok(self.hide(id, self.characters));
        }
        let piece = self.detokenizer.push(id)?;
        let offset = self.characters + piece.before;
        self.characters += piece.text.chars().count();
        let step = self.stops.push(&piece.text);
        self.stopped |= step.stopped.is_some();
        Ok(AnswerStep { text: step.emit, offset, stopped: self.stopped })
    }

    /// Takes a token that is not part of the text, special or not: one that ends the answer.
    pub fn push_hidden(&mut self, id: u32) -> AnswerStep {
        self.hide(id, self.characters + self.detokenizer.unfinished())
    }

    fn hide(&mut self, id: u32, offset: usize) -> AnswerStep {
        let step = self.stops.push_hidden(&self.tokenizer.id_to_token(id).unwrap_or_default());
        self.stopped |= step.stopped.is_some();
        AnswerStep { text: step.emit, offset, stopped: self.stopped }
    }

    /// The text that was held back, once no token comes any more; nothing after a stop string.
    pub fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        let rest = self.detokenizer.finish();
        let step = self.stops.push(&rest);
        self.stopped = true;
        if step.stopped.is_some() { step.emit } else { step.emit + &self.stops.finish() }
    }
}
