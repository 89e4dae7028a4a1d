//! Stop strings: cut generated text at the first one, whatever the chunks it arrives in.

use crate::TextError;

/// What one [`StopMatcher::push`] releases.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StopStep {
    /// Text that may go to the client now. Never holds any part of the stop string that matched.
    pub emit: String,
    /// The index of the stop string that matched. Nothing may be pushed after it.
    pub stopped: Option<usize>,
}

/// Finds the first stop string in a stream of text.
///
/// First is the one that completes first; of several that complete at the same character, the longest.
/// So the answer does not depend on how the text is cut into chunks, and a complete match never waits
/// for a longer one. Only the longest suffix that could still begin a stop string is held back. Cost: one
/// Knuth–Morris–Pratt step per byte and stop string.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    held: String,
    stopped: bool,
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
        Ok(Self { stops, held: String::new(), stopped: false })
    }

    /// Takes the next piece of text. After a match, further text is dropped.
    pub fn push(&mut self, text: &str) -> StopStep {
        if self.stopped {
            return StopStep::default();
        }
        for (i, &byte) in text.as_bytes().iter().enumerate() {
            if let Some(index) = self.advance(byte) {
                self.stopped = true;
                let mut emit = std::mem::take(&mut self.held);
                emit.push_str(&text[..=i]);
                emit.truncate(emit.len() - self.stops[index].bytes.len());
                return StopStep { emit, stopped: Some(index) };
            }
        }
        self.held.push_str(text);
        let keep = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        let held = self.held.split_off(self.held.len() - keep);
        StopStep { emit: std::mem::replace(&mut self.held, held), stopped: None }
    }

    /// The text still held back, once no more is coming.
    pub fn finish(&mut self) -> String {
        self.stops.iter_mut().for_each(|stop| stop.matched = 0);
        std::mem::take(&mut self.held)
    }

    /// Feeds one byte to every stop string; the longest that is now complete.
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

    fn run(stops: &[&str], chunks: &[&str]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops).unwrap();
        let mut out = String::new();
        for chunk in chunks {
            let step = matcher.push(chunk);
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
        #[test]
        fn equals_a_search_of_the_whole_text(
            text in "[abé☃]{0,40}",
            stops in prop::collection::vec("[abé☃]{1,5}", 0..4),
            cuts in prop::collection::vec(1usize..6, 0..40),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let mut chunks = Vec::new();
            let mut rest = text.as_str();
            for cut in cuts {
                let at = rest.char_indices().nth(cut).map_or(rest.len(), |(at, _)| at);
                chunks.push(&rest[..at]);
                rest = &rest[at..];
            }
            chunks.push(rest);
            prop_assert_eq!(run(&stops, &chunks), naive(&stops, &text));
        }
    }
}
