//! Steps of a reader that takes a text a character at a time.

/// Effect of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There may be more.
    More,
    /// The text ends with this character.
    Done,
    /// The text has ended before this character.
    Before,
}

/// A text that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbled;

/// Text up to a marker.
#[derive(Debug, Clone)]
pub(super) struct Until {
    end: &'static str,
    /// Other markers that end it.
    others: &'static [&'static str],
    /// Characters that may begin a marker.
    held: Vec<char>,
}

impl Until {
    /// The text before `end`, which is ASCII and not empty.
    pub(super) fn new(end: &'static str) -> Self {
        Self::any(end, &[])
    }

    /// The text before `end` or one of the others, all of them ASCII and not empty.
    pub(super) fn any(end: &'static str, others: &'static [&'static str]) -> Self {
        Self { end, others, held: Vec::new() }
    }

    /// Takes the next character; gives to `text` what cannot belong to a marker. The marker, once one is whole.
    pub(super) fn push(&mut self, c: char, mut text: impl FnMut(char)) -> Option<&'static str> {
        self.held.push(c);
        let markers = || std::iter::once(self.end).chain(self.others.iter().copied());
        let from = (0..self.held.len()).find(|&from| markers().any(|marker| begins(marker, &self.held[from..])));
        let whole = from.and_then(|from| {
            let held = &self.held[from..];
            markers().find(|marker| marker.len() == held.len() && begins(marker, held))
        });
        self.held.drain(..from.unwrap_or(self.held.len())).for_each(&mut text);
        if whole.is_some() {
            self.held.clear();
        }
        whole
    }
}

/// A text that has to come as it is.
#[derive(Debug, Clone)]
pub(super) struct Expect(pub &'static str);

impl Expect {
    /// Takes the next character. True once the text is whole.
    pub(super) fn push(&mut self, c: char) -> Result<bool, Garbled> {
        self.0 = self.0.strip_prefix(c).ok_or(Garbled)?;
        Ok(self.0.is_empty())
    }
}

/// True if a marker begins with these characters.
pub(super) fn begins(marker: &str, with: &[char]) -> bool {
    let mut marker = marker.chars();
    with.iter().all(|&c| marker.next() == Some(c))
}
