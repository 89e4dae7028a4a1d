//! Stop strings: cut generated text at the first one, whatever the chunks it arrives in.

use crate::error::TextError;
use std::collections::VecDeque;

/// Text that one [`StopMatcher::push`] releases.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StopStep {
    /// Text that may go to the client now. Never holds any part of the stop string that matched.
    pub emit: String,
    /// The index of the stop string that matched. Nothing may be pushed after it.
    pub stopped: Option<usize>,
}

/// Finds the first stop string in a stream of text, parts of which may be hidden: a special token's text can be part of a
/// stop string, but never of what is released.
///
/// First is the one that completes first; of several that complete at the same character, the longest.
/// Thus the answer does not depend on how the text is cut into chunks, and a complete match never waits
/// for a longer one. Only the longest suffix that could still begin a stop string is held back. Cost: one
/// Knuth–Morris–Pratt step per byte and stop string.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    held: VecDeque<Run>,
    stopped: bool,
}

/// Text that is released as a whole or not at all.
#[derive(Debug, Clone)]
struct Run {
    text: String,
    hidden: bool,
}

#[derive(Debug, Clone)]
struct Stop {
    bytes: Vec<u8>,
    /// `borders[i]`: length of the longest proper prefix of `bytes[..=i]` that is also its suffix.
    borders: Vec<usize>,
    /// Bytes of the stop string that the text seen so far ends with.
    matched: usize,
}

impl StopMatcher {
    /// A matcher for `stops`; with none it passes all text on at once.
    ///
    /// # Errors
    /// An empty stop string, which would match everywhere.
    pub fn new<S: AsRef<str>>(stops: &[S]) -> Result<Self, TextError> {
        let stops = stops
            .iter()
            .enumerate()
            .map(|(index, stop)| match stop.as_ref() {
                "" => Err(TextError::EmptyStop { index }),
                stop => Ok(Stop::new(stop)),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { stops, held: VecDeque::new(), stopped: false })
    }

    /// Takes the next piece of text. After a match, further text is dropped.
    pub fn push(&mut self, text: &str) -> StopStep {
        self.take(text, false)
    }

    /// Takes text that stop strings match as any other, and that is not released: a special token's.
    pub fn push_hidden(&mut self, text: &str) -> StopStep {
        self.take(text, true)
    }

    fn take(&mut self, text: &str, hidden: bool) -> StopStep {
        if self.stopped {
            return StopStep::default();
        }
        let held: usize = self.held.iter().map(|run| run.text.len()).sum();
        self.held.push_back(Run { text: text.to_owned(), hidden });
        for (i, &byte) in text.as_bytes().iter().enumerate() {
            if let Some(index) = self.advance(byte) {
                self.stopped = true;
                let emit = self.release(held + i + 1 - self.stops[index].bytes.len());
                self.held.clear();
                return StopStep { emit, stopped: Some(index) };
            }
        }
        let keep = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        StopStep { emit: self.release(held + text.len() - keep), stopped: None }
    }

    /// The text still held back, once no more is coming.
    pub fn finish(&mut self) -> String {
        self.stops.iter_mut().for_each(|stop| stop.matched = 0);
        self.held.drain(..).filter(|run| !run.hidden).map(|run| run.text).collect()
    }

    /// Takes `bytes` from the front of what is held, and of these the ones that may be seen.
    fn release(&mut self, mut bytes: usize) -> String {
        let mut text = String::new();
        while let Some(mut run) = self.held.pop_front() {
            let rest = run.text.split_off(bytes.min(run.text.len()));
            bytes -= run.text.len();
            if !run.hidden {
                text += &run.text;
            }
            if !rest.is_empty() {
                self.held.push_front(Run { text: rest, ..run });
                break;
            }
        }
        text
    }

    /// Feeds one byte to every stop string; returns the longest that is now complete.
    fn advance(&mut self, byte: u8) -> Option<usize> {
        let mut longest: Option<usize> = None;
        for index in 0..self.stops.len() {
            let complete = self.stops[index].advance(byte);
            let longer = |than: usize| self.stops[index].bytes.len() > self.stops[than].bytes.len();
            if complete && longest.is_none_or(longer) {
                longest = Some(index);
            }
        }
        longest
    }
}

impl Stop {
    fn new(stop: &str) -> Self {
        let bytes = stop.as_bytes().to_vec();
        let mut borders = vec![0; bytes.len()];
        let mut length = 0;
        for i in 1..bytes.len() {
            while length > 0 && bytes[i] != bytes[length] {
                length = borders[length - 1];
            }
            length += usize::from(bytes[i] == bytes[length]);
            borders[i] = length;
        }
        Self { bytes, borders, matched: 0 }
    }

    /// True when the text now ends with the whole stop string.
    fn advance(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes.get(self.matched) != Some(&byte) {
            self.matched = self.borders[self.matched - 1];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        self.matched == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Chunks in brackets are hidden, without the brackets.
    fn run(stops: &[&str], chunks: &[&str]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops).unwrap();
        let mut out = String::new();
        for chunk in chunks {
            let step = match chunk.strip_prefix('[').and_then(|chunk| chunk.strip_suffix(']')) {
                Some(hidden) => matcher.push_hidden(hidden),
                None => matcher.push(chunk),
            };
            out += &step.emit;
            if step.stopped.is_some() {
                return (out, step.stopped);
            }
        }
        (out + &matcher.finish(), None)
    }

    /// The first character at which any stop string is complete, the longest one there.
    fn naive(stops: &[&str], text: &str) -> (String, Option<usize>) {
        for end in 0..=text.len() {
            let Some(seen) = text.get(..end) else { continue };
            let found = (0..stops.len()).rev().filter(|&i| seen.ends_with(stops[i])).max_by_key(|&i| stops[i].len());
            if let Some(index) = found {
                return (seen[..end - stops[index].len()].to_string(), Some(index));
            }
        }
        (text.to_string(), None)
    }

    #[test]
    fn holds_back_only_what_may_begin_a_stop() {
        let mut matcher = StopMatcher::new(&["</end>"]).unwrap();
        assert_eq!(matcher.push("a < b").emit, "a < b");
        assert_eq!(matcher.push("c </e").emit, "c ");
        assert_eq!(matcher.push("x").emit, "</ex");
        assert_eq!(matcher.push("</").emit, "");
        assert_eq!(matcher.finish(), "</");
    }

    #[test]
    fn cuts_at_a_stop_over_three_chunks() {
        assert_eq!(run(&["STOP"], &["go S", "TO", "P on"]), ("go ".into(), Some(0)));
    }

    #[test]
    fn the_match_that_completes_first_wins_then_the_longest() {
        assert_eq!(run(&["abcd", "bc"], &["xabcd"]), ("xa".into(), Some(1)));
        assert_eq!(run(&["c", "abc"], &["xabc"]), ("x".into(), Some(1)));
    }

    #[test]
    fn hidden_text_is_matched_and_never_released() {
        let eos = "[<|end|>]";
        assert_eq!(run(&["<|end|>"], &["hi", eos, "on"]), ("hi".into(), Some(0)));
        assert_eq!(run(&["bye<|end|>"], &["hi b", "ye", eos]), ("hi ".into(), Some(0)));
        assert_eq!(run(&["<|end|>\n\n"], &["hi", eos, "\n", "\non"]), ("hi".into(), Some(0)));
        assert_eq!(run(&["<|end|>\n\n"], &["hi", eos, "\n", "on"]), ("hi\non".into(), None));
        assert_eq!(run(&["end"], &["hi<", "[end]", ">"]), ("hi<".into(), Some(0)));
        assert_eq!(run(&["x"], &["a", eos, "b", eos]), ("ab".into(), None));
        assert_eq!(run(&["<|end|>!"], &["a", eos]), ("a".into(), None));
    }

    #[test]
    fn drops_what_comes_after_the_match() {
        let mut matcher = StopMatcher::new(&["."]).unwrap();
        assert_eq!(matcher.push("one. two").emit, "one");
        assert_eq!(matcher.push("three"), StopStep::default());
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn refuses_an_empty_stop() {
        assert!(matches!(StopMatcher::new(&["a", ""]), Err(TextError::EmptyStop { index: 1 })));
    }

    proptest! {
        /// Compares with a search of the whole text, hidden parts in it, which leaves those out of what stands before the match.
        #[test]
        fn equals_a_search_of_the_whole_text(
            chunks in prop::collection::vec(("[abé☃]{0,6}", prop::bool::weighted(0.3)), 0..12),
            stops in prop::collection::vec("[abé☃]{1,5}", 0..4),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let text: String = chunks.iter().map(|(chunk, _)| chunk.as_str()).collect();
            let (before, stopped) = naive(&stops, &text);
            let (mut seen, mut left) = (String::new(), before.len());
            for (chunk, hidden) in &chunks {
                let part = &chunk[..left.min(chunk.len())];
                left -= part.len();
                if !hidden {
                    seen += part;
                }
            }
            let written: Vec<String> =
                chunks.iter().map(|(chunk, hidden)| if *hidden { format!("[{chunk}]") } else { chunk.clone() }).collect();
            let written: Vec<&str> = written.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&stops, &written), (seen, stopped));
        }

        /// Checks that no more is held back than the longest beginning of a stop string that the text ends with.
        #[test]
        fn holds_back_no_more_than_it_must(text in "[ab]{0,20}", hidden in "[ab]{0,4}", stops in prop::collection::vec("[ab]{1,5}", 1..4)) {
            let mut matcher = StopMatcher::new(&stops).unwrap();
            let first = matcher.push_hidden(&hidden);
            let step = matcher.push(&text);
            prop_assume!(first.stopped.is_none() && step.stopped.is_none());
            let seen = hidden.clone() + &text;
            let begun = |stop: &String| (0..=stop.len()).rev().find(|&n| seen.ends_with(&stop[..n])).unwrap_or(0);
            let held = stops.iter().map(begun).max().unwrap_or(0).min(text.len());
            prop_assert_eq!(first.emit, "");
            prop_assert_eq!(step.emit, &text[..text.len() - held]);
        }
    }
}
