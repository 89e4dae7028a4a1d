//! The text of one answer, as its tokens come.

use super::format::{Divide, OutputFormat};
use super::segment::Segment;
use super::sink::Sink;
use super::stop::StopMatcher;
use crate::detokenizer::Detokenizer;
use crate::error::TextError;
use crate::tokenizer::Tokenizer;

/// Turns an answer's tokens into the text that a client gets: whole characters, by their kind, up to the first stop string, without
/// special tokens. Stop strings are searched for in the content *with* special tokens, so that one may be or contain `<|im_end|>`; not in
/// reasoning, in calls or in their markup, and no match spans these.
#[derive(Debug, Clone)]
pub struct AnswerText {
    tokenizer: Tokenizer,
    detokenizer: Detokenizer,
    /// None where all is content.
    divide: Option<Divide>,
    sink: Sink,
    characters: usize,
    finished: bool,
}

/// Effect of one token on an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AnswerStep {
    /// Text that became final, by its kind.
    pub segments: Vec<Segment>,
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
    pub fn new(tokenizer: &Tokenizer, prompt: Option<&[u32]>, stops: StopMatcher, format: &OutputFormat) -> Self {
        let detokenizer = match prompt {
            Some(prompt) => Detokenizer::after(tokenizer, true, prompt),
            None => Detokenizer::new(tokenizer, true),
        };
        let (divide, sink) = (format.divider(), Sink::new(stops));
        Self { tokenizer: tokenizer.clone(), detokenizer, divide, sink, characters: 0, finished: false }
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
        self.take(&piece.text);
        Ok(self.step(offset))
    }

    /// Takes a token that is not part of the text, special or not: one that ends the answer.
    pub fn push_hidden(&mut self, id: u32) -> AnswerStep {
        self.hide(id, self.characters + self.detokenizer.unfinished())
    }

    /// The index of the stop string that ended the answer, if one did.
    #[must_use]
    pub fn stop(&self) -> Option<usize> {
        self.sink.stop()
    }

    /// True while its tokens are reasoning, or markup that may begin it.
    #[must_use]
    pub fn reasons(&self) -> bool {
        self.divide.as_ref().is_some_and(Divide::reasons)
    }

    /// The text that was held back, once no token comes any more; nothing after a stop string. A call that is not whole ends as
    /// [`Segment::Malformed`].
    pub fn finish(&mut self) -> Vec<Segment> {
        if std::mem::replace(&mut self.finished, true) || self.sink.stopped() {
            return Vec::new();
        }
        let rest = self.detokenizer.finish();
        self.take(&rest);
        if let Some(divide) = &mut self.divide {
            divide.finish(&mut self.sink);
        }
        self.sink.finish()
    }

    fn hide(&mut self, id: u32, offset: usize) -> AnswerStep {
        let token = self.tokenizer.id_to_token(id).unwrap_or_default();
        if self.divide.is_some() {
            // A character that is never finished stands before the token.
            let rest = self.detokenizer.finish();
            self.take(&rest);
        }
        match &mut self.divide {
            Some(divide) => divide.push_hidden(&token, &mut self.sink),
            None => self.sink.hidden(&token),
        }
        self.step(offset)
    }

    fn take(&mut self, text: &str) {
        self.characters += text.chars().count();
        match &mut self.divide {
            Some(divide) => divide.push(text, &mut self.sink),
            None => self.sink.contents(text),
        }
    }

    fn step(&mut self, offset: usize) -> AnswerStep {
        AnswerStep { segments: self.sink.take(), offset, stopped: self.sink.stopped() }
    }
}
