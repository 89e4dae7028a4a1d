//! Long texts into ids in bounded memory: piece by piece, exactly as in one go, and no further than wanted.
//!
//! `tokenizers` takes some two hundred bytes for each byte of text that it is given at once.
//!
//! A text that cannot be cut between words is divided into pieces that overlap and are joined inside the overlap. That is exact
//! because of the order of merges: the one of the lowest rank comes first, wherever it is. Tokens `t1 … tn` are those of a text
//! if and only if each two neighbors are those of their own text: as long as no merge has crossed a boundary, what happens in
//! `ti ti+1` is what would happen there alone, and the first that crossed one would cross it alone, too. So tokens of one piece
//! up to some boundary, and tokens of the next from there on, are those of both pieces if both have the same token behind the
//! boundary.

use crate::byte_level::byte_level;
use crate::cuts::{MAX_SPACE, Rule};
use crate::error::TextError;
use crate::tokenizer::{Bytes, Tokenizer, fallback_byte};

/// Bytes of text.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Text encoded at once.
    piece: usize,
    /// Text that two pieces share where they are joined.
    overlap: usize,
    /// Text encoded at once where there is no other way.
    whole: usize,
}

/// Limits of one encoding.
struct Bounds<'a> {
    sizes: Sizes,
    /// Ids wanted at most.
    limit: usize,
    /// Predicate asked between pieces; false ends the encoding.
    go_on: &'a mut dyn FnMut() -> bool,
}

impl Bounds<'_> {
    /// Refuses so many tokens; `exact` where the text has no more.
    fn check(&self, tokens: usize, exact: bool) -> Result<(), TextError> {
        if tokens > self.limit { Err(TextError::TooLong { tokens, exact, limit: self.limit }) } else { Ok(()) }
    }
}

/// Pieces after which `tokenizers` forgets the words that it remembers: up to thirty times their text.
const FORGET: usize = 8;
/// Places tried for the beginning of an overlapping piece.
const TRIES: usize = 64;

impl Sizes {
    /// Sizes for tokens of at most `longest` bytes: a word as long as an overlap is no token.
    fn new(longest: Option<usize>) -> Self {
        let overlap = (4 * longest.unwrap_or(0)).max(256);
        Self { piece: (4 * overlap).max(16 << 10), overlap, whole: 256 << 10 }
    }
}

/// The way in which a piece meets the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joint {
    /// Independent: neither piece depends on the other.
    Free,
    /// The last tokens before it may be wrong: the next piece begins earlier.
    Overlap,
}

impl Tokenizer {
    /// The ids that [`encode`](Self::encode) gives if these are at most `limit`, in a few MiB of memory however long the text
    /// is. `go_on` is asked between pieces of some 16 KiB.
    ///
    /// # Errors
    /// - [`TextError::TooLong`] as soon as it is certain that there are more, often without looking at the text at all;
    /// - [`TextError::Canceled`] when `go_on` says no;
    /// - [`TextError::Undivided`] for a text of more than 256 KiB that cannot be divided exactly, or whose tokenizer is of a kind that is
    ///   not known well enough to divide any;
    /// - [`TextError::Encode`] as for `encode`.
    pub fn encode_within(
        &self,
        text: &str,
        add_special_tokens: bool,
        limit: usize,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<u32>, TextError> {
        self.encode_in(text, add_special_tokens, Bounds { sizes: Sizes::new(self.cuts().longest), limit, go_on })
    }

    fn encode_in(&self, text: &str, add_special_tokens: bool, mut bounds: Bounds<'_>) -> Result<Vec<u32>, TextError> {
        let ids = match self.encode_pieces(text, add_special_tokens, &mut bounds) {
            Err(TextError::Undivided { .. }) if text.len() <= bounds.sizes.whole => {
                self.encode(text, add_special_tokens)?
            }
            result => result?,
        };
        bounds.check(ids.len(), true).map(|()| ids)
    }

    fn encode_pieces(
        &self,
        text: &str,
        add_special_tokens: bool,
        bounds: &mut Bounds<'_>,
    ) -> Result<Vec<u32>, TextError> {
        let sizes = bounds.sizes;
        let (mut ids, end) = self.frame(add_special_tokens)?;
        let framed = ids.len() + end.len();
        bounds.check(framed + self.cuts().longest.map_or(0, |longest| text.len().div_ceil(longest.max(1))), false)?;
        let (mut at, mut joint, mut pieces) = (0, Joint::Free, 0);
        while at < text.len() {
            if !(bounds.go_on)() {
                return Err(TextError::Canceled);
            }
            let (stop, next) = self.next_piece(sizes, text, at)?;
            match joint {
                Joint::Free => ids.extend(self.encode(&text[at..stop], false)?),
                Joint::Overlap => self.join(sizes, text, at, stop, &mut ids)?,
            }
            (at, joint, pieces) = (stop, next, pieces + 1);
            // Tokens in the overlap may be replaced by fewer: they are one for each byte at most, of which a space has several.
            let unsure = if joint == Joint::Overlap { MAX_SPACE * sizes.overlap } else { 0 };
            bounds.check((ids.len() + end.len()).saturating_sub(unsure), at == text.len())?;
            if pieces % FORGET == 0 {
                self.forget_words();
            }
        }
        ids.extend(end);
        Ok(ids)
    }

    /// End of the piece that begins at byte `at`, and how it meets the next.
    fn next_piece(&self, sizes: Sizes, text: &str, at: usize) -> Result<(usize, Joint), TextError> {
        let left = text.len() - at;
        if left <= sizes.piece {
            return Ok((text.len(), Joint::Free));
        }
        let (near, far) = (at + sizes.piece / 2, at + sizes.piece);
        let places = |from: usize, to: usize| (from + 1..=to).rev().filter(|&place| text.is_char_boundary(place));
        if let Some(place) = places(near, far).find(|&place| self.cuts().is_free(text, place)) {
            return Ok((place, Joint::Free));
        }
        let joins = |&place: &usize| {
            let from = text.floor_char_boundary(place - sizes.overlap);
            match self.cuts().rule {
                Rule::Stream(_) => self.cuts().is_plain(text, from, place),
                Rule::Words { .. } => {
                    self.cuts().is_plain(text, from, place) && self.cuts().is_one_run(text, from, place)
                }
                Rule::Whole => false,
            }
        };
        // Not at every place: each costs a look at a whole overlap.
        if let Some(place) = places(near.max(at + sizes.overlap), far).step_by(sizes.overlap / 4 + 1).find(joins) {
            return Ok((place, Joint::Overlap));
        }
        let end = text.floor_char_boundary(text.len().min(at + sizes.whole));
        if let Some(place) =
            (far..end).filter(|&p| text.is_char_boundary(p)).find(|&place| self.cuts().is_free(text, place))
        {
            return Ok((place, Joint::Free));
        }
        if left <= sizes.whole { Ok((text.len(), Joint::Free)) } else { Err(undivided(sizes)) }
    }

    /// Encodes up to `stop` from somewhere in the overlap before `at`, where the tokens so far end, and joins both.
    fn join(&self, sizes: Sizes, text: &str, at: usize, stop: usize, ids: &mut Vec<u32>) -> Result<(), TextError> {
        let begin = text.floor_char_boundary(at - sizes.overlap);
        let places = text[begin..at].char_indices().map(|(i, _)| begin + i);
        // The tokenizer may put a space in front of the piece: best where one belongs.
        let behind_space = |place: &usize| text[..*place].ends_with(' ');
        let half = begin + sizes.overlap / 2;
        let spaced: Vec<usize> = places.clone().filter(|&p| p <= half).filter(behind_space).take(TRIES / 2).collect();
        for from in spaced.into_iter().chain(places).take(TRIES) {
            // A short try first: what follows is a whole piece.
            let short = self.encode(&text[from..at], false)?;
            if self.meet(&text[from..at], ids, &short).is_none() {
                continue;
            }
            let piece = self.encode(&text[from..stop], false)?;
            if let Some((keep, skip)) = self.meet(&text[from..at], ids, &piece) {
                ids.truncate(keep);
                ids.extend(&piece[skip..]);
                return Ok(());
            }
        }
        Err(undivided(sizes))
    }

    /// The first boundary inside `overlap` behind which both have the same token: `left` ends with the tokens of a text that
    /// ends with the overlap, `right` are those of one that begins with it. How many tokens are before it, in each.
    fn meet(&self, overlap: &str, left: &[u32], right: &[u32]) -> Option<(usize, usize)> {
        let (width, prefix) = match &self.cuts().rule {
            Rule::Stream(stream) => (stream.width(overlap), stream.prefix(overlap)),
            _ => (overlap.len(), 0),
        };
        let mut from_right = Vec::new();
        let mut place = 0;
        for (i, &id) in right.iter().enumerate() {
            if place >= width + prefix {
                break;
            }
            if place >= prefix {
                from_right.push((place - prefix, i));
            }
            place += self.token_width(id);
        }
        let mut before_end = 0;
        let mut found = None;
        for (i, &id) in left.iter().enumerate().rev() {
            before_end += self.token_width(id);
            let Some(place) = width.checked_sub(before_end) else { break };
            if let Ok(j) = from_right.binary_search_by_key(&place, |&(place, _)| place)
                && right[from_right[j].1] == id
            {
                found = Some((i, from_right[j].1));
            }
        }
        found
    }

    /// Bytes of rewritten text that a token stands for.
    fn token_width(&self, id: u32) -> usize {
        let token = self.id_to_token(id).unwrap_or_default();
        match self.bytes() {
            Bytes::Level => byte_level(&token).len(),
            _ if fallback_byte(&token).is_some() => 1,
            _ => token.len(),
        }
    }
}

fn undivided(sizes: Sizes) -> TextError {
    TextError::Undivided { kib: sizes.whole >> 10 }
}

#[cfg(test)]
#[path = "within_tests.rs"]
mod tests;
