//! Token ids one at a time into text that can be sent at once.

use crate::byte_level::byte_level;
use crate::error::TextError;
use crate::tokenizer::{Bytes, Tokenizer, fallback_byte};

/// Tokens before the current one that decide on its leading space.
const CONTEXT: usize = 4;

/// Incremental detokenizer: emits text as soon as it is whole characters, never half of one.
///
/// The texts that [`push`](Self::push) and [`finish`](Self::finish) return, joined, are [`Tokenizer::decode`] of all
/// ids, with one exception: `tokenizers` replaces *every* byte of a run of `<0xHH>` tokens that is not valid
/// as a whole, here the valid characters of such a run stay (they have been sent already).
/// A step costs the decoding of at most nine tokens, however long the text is.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// Bytes of a character that is not complete yet.
    pending: Vec<u8>,
    /// The `<0xHH>` tokens of `pending`.
    pending_ids: Vec<u32>,
    /// The last tokens whose text is out.
    context: Vec<u32>,
}

/// Text that one token completes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// Whole characters; none while the token's own is unfinished.
    pub text: String,
    /// Characters at the beginning of the text that are not the token's: an earlier one that it does not finish, as U+FFFD.
    pub before: usize,
}

impl Detokenizer {
    /// A detokenizer at the beginning of a text. `skip_special` leaves out tokens like `<|im_end|>`.
    #[must_use]
    pub fn new(tokenizer: &Tokenizer, skip_special: bool) -> Self {
        let tokenizer = tokenizer.clone();
        Self { tokenizer, skip_special, pending: Vec::new(), pending_ids: Vec::new(), context: Vec::new() }
    }

    /// A detokenizer whose text goes on after `prompt`: sentencepiece models then keep the space before their
    /// first word.
    #[must_use]
    pub fn after(tokenizer: &Tokenizer, skip_special: bool, prompt: &[u32]) -> Self {
        let mut this = Self::new(tokenizer, skip_special);
        let visible = |id: &&u32| tokenizer.is_visible(**id, skip_special);
        this.context = prompt.iter().rev().filter(visible).take(CONTEXT).copied().collect();
        this.context.reverse();
        this
    }

    /// Takes the next token.
    ///
    /// # Errors
    /// [`TextError::Decode`] when the decoder that `tokenizer.json` configures fails.
    pub fn push(&mut self, id: u32) -> Result<Piece, TextError> {
        let Some(token) = self.tokenizer.id_to_token(id).filter(|_| self.tokenizer.is_visible(id, self.skip_special))
        else {
            return Ok(Piece::default());
        };
        let earlier = self.pending.len();
        match (self.tokenizer.bytes(), fallback_byte(&token)) {
            (Bytes::Level, _) => {
                self.pending.extend(byte_level(&token));
                Ok(self.take_characters(earlier, false).0)
            }
            (Bytes::Fallback, Some(byte)) => {
                self.pending.push(byte);
                self.pending_ids.push(id);
                self.take_fallback(earlier, false)
            }
            _ => {
                let mut text = self.take_fallback(earlier, true)?.text;
                let before = text.chars().count();
                text += &self.tokenizer.text_after(&self.context, id)?;
                self.remember(&[id]);
                Ok(Piece { text, before })
            }
        }
    }

    /// The rest: a character that was never completed, as U+FFFD.
    pub fn finish(&mut self) -> String {
        self.pending_ids.clear();
        self.take_characters(0, true).0.text
    }

    /// Characters that [`finish`](Self::finish) would give now.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.marks(self.pending.len())
    }

    /// The text of the `<0xHH>` tokens so far; of all of them when the run is `over`. The first `earlier` are not the last token's.
    fn take_fallback(&mut self, earlier: usize, over: bool) -> Result<Piece, TextError> {
        let (mut piece, taken) = self.take_characters(earlier, over);
        let ids: Vec<u32> = self.pending_ids.drain(..taken).collect();
        if self.context.is_empty() && taken > 0 {
            // Only the decoder knows its rules for the beginning of a text.
            piece.text = self.tokenizer.decode(&ids, false)?;
        }
        self.remember(&ids);
        Ok(piece)
    }

    /// Moves whole characters out of `pending`, invalid bytes as U+FFFD, and how many bytes they were. The first `earlier` bytes are not the
    /// last token's. An unfinished character stays, unless nothing more comes (`over`).
    fn take_characters(&mut self, earlier: usize, over: bool) -> (Piece, usize) {
        let mut piece = Piece::default();
        let mut taken = 0;
        for chunk in self.pending.utf8_chunks() {
            piece.text += chunk.valid();
            taken += chunk.valid().len();
            let invalid = chunk.invalid();
            let unfinished = taken + invalid.len() == self.pending.len()
                && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if unfinished && !over {
                break;
            }
            let marks = self.marks(invalid.len());
            piece.text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, marks));
            taken += invalid.len();
            if taken <= earlier {
                piece.before += marks;
            }
        }
        self.pending.drain(..taken);
        (piece, taken)
    }

    /// U+FFFD for so many bytes that are no character: one, but one for each `<0xHH>` token where those exist.
    fn marks(&self, bytes: usize) -> usize {
        if self.tokenizer.bytes() == Bytes::Fallback { bytes } else { bytes.min(1) }
    }

    fn remember(&mut self, ids: &[u32]) {
        self.context.extend(ids);
        let excess = self.context.len().saturating_sub(CONTEXT);
        self.context.drain(..excess);
    }
}
