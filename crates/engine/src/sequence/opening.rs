//! The place where an answer may begin to reason.

use mlx_serving_text::{Formats, OutputFormat, ReasoningFormat, Tokenizer};
use std::rc::Rc;

/// Tokens at most that a marker is looked for in.
const MAX_MARKER: usize = 32;

/// Beginnings of reasoning, by the text that tokens stand for: a model may cut a marker as it likes, and write space before it.
#[derive(Clone)]
pub(super) struct Opening {
    /// Text that begins reasoning; empty if the model does not reason.
    pub marker: Vec<u8>,
    /// It may begin behind content, too.
    pub anywhere: bool,
    /// Tokens of the marker, if the answer may begin with it.
    pub start: Vec<u32>,
    /// Tokens of white space that may come before these.
    pub spaces: Vec<u32>,
    pub text: Rc<dyn Fn(u32) -> Vec<u8>>,
}

impl Opening {
    pub(super) fn new(format: &OutputFormat, tokenizer: &Tokenizer) -> Self {
        let own = tokenizer.clone();
        let text = move |token| match own.is_special(token) {
            true => own.id_to_token(token).unwrap_or_default().into_bytes(),
            false => own.token_bytes(token).unwrap_or_default(),
        };
        // What the prompt says of the answer's beginning does not matter for what the marker is.
        let formats = Formats { reasoning: format.reasoning(), calls: None };
        let marker = OutputFormat::new(formats, Vec::new(), "").start_of_reasoning(tokenizer);
        let marker: Vec<u8> = marker.into_iter().flat_map(&text).collect();
        let spaces = ["\n", "\n\n"].iter().filter_map(|space| tokenizer.encode(space, false).ok()?.last().copied());
        Self {
            marker: marker.trim_ascii_start().to_vec(),
            anywhere: format.reasoning() == Some(ReasoningFormat::Gemma),
            start: format.start_of_reasoning(tokenizer),
            spaces: spaces.filter(|space| text(*space).iter().all(u8::is_ascii_whitespace)).collect(),
            text: Rc::new(text),
        }
    }

    /// Tokens with which an answer under rules may go on to begin reasoning: white space and the marker, one token after the other.
    pub(super) fn next(&self, answer: &[u32]) -> Vec<u32> {
        let marked = match answer {
            [space, marked @ ..] if self.spaces.contains(space) => marked,
            _ => answer,
        };
        let Some([next, ..]) = self.start.strip_prefix(marked) else { return Vec::new() };
        let spaces = self.spaces.iter().filter(|_| answer.is_empty());
        spaces.chain([next]).copied().collect()
    }

    /// True if these tokens, the first of an answer under rules, begin reasoning.
    pub(super) fn is_opened_by(&self, answer: &[u32]) -> bool {
        let spaced = answer.first().is_some_and(|first| self.spaces.contains(first));
        !self.start.is_empty() && answer[usize::from(spaced)..] == self.start
    }

    /// True if the newest of these tokens completes a marker.
    pub(super) fn is_completed(&self, tokens: &[u32]) -> bool {
        let Some((&newest, before)) = tokens.split_last() else { return false };
        let before = &before[before.len().saturating_sub(MAX_MARKER)..];
        let mut text: Vec<u8> = before.iter().flat_map(|token| (self.text)(*token)).collect();
        let known = text.len();
        text.extend((self.text)(newest));
        let last = text.windows(self.marker.len().max(1)).rposition(|part| part == self.marker);
        last.is_some_and(|at| at + self.marker.len() > known)
    }

    /// True if reasoning may begin behind these tokens, all since the answer's beginning or the end of reasoning: they are white space and
    /// perhaps a part of the marker.
    pub(super) fn may_follow(&self, tokens: &[u32]) -> bool {
        let text: Vec<u8> = tokens.iter().flat_map(|token| (self.text)(*token)).collect();
        !self.marker.is_empty() && (self.anywhere || self.marker.starts_with(text.trim_ascii_start()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(start: &[u32]) -> Opening {
        let text = |token: u32| [&b"<think>"[..], b"<th", b"ink", b">", b"\n", b"word", b">a"][token as usize].to_vec();
        Opening {
            marker: b"<think>".to_vec(),
            anywhere: false,
            start: start.to_vec(),
            spaces: vec![4],
            text: Rc::new(text),
        }
    }

    #[test]
    fn an_answer_under_rules_may_begin_with_space_and_the_tokens_of_the_marker() {
        let several = opening(&[1, 2, 3]);
        assert_eq!(several.next(&[]), [4, 1]);
        assert_eq!((several.next(&[4]), several.next(&[1]), several.next(&[4, 1, 2])), (vec![1], vec![2], vec![3]));
        for other in [&[1, 2, 3][..], &[4, 4], &[5], &[1, 5]] {
            assert!(several.next(other).is_empty(), "{other:?}");
        }
        let opened = [&[1, 2, 3][..], &[4, 1, 2, 3], &[4], &[1, 2], &[]].map(|answer| several.is_opened_by(answer));
        assert_eq!(opened, [true, true, false, false, false]);
        assert!(opening(&[]).next(&[]).is_empty() && !opening(&[]).is_opened_by(&[]));
    }

    #[test]
    fn a_marker_is_known_by_its_text() {
        let opening = opening(&[0]);
        for (tokens, completed, follows) in [
            (&[4, 0][..], true, true),
            (&[4, 1, 2, 6], true, false),
            (&[1, 2], false, true),
            (&[0, 5], false, false),
            (&[4, 4], false, true),
            (&[5], false, false),
        ] {
            assert_eq!((opening.is_completed(tokens), opening.may_follow(tokens)), (completed, follows), "{tokens:?}");
        }
    }
}
