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
    /// Characters of the marker that the text seen so far ends with.
    matched: usize,
}

impl Until {
    /// The text before `end`, which is ASCII and not empty.
    pub(super) fn new(end: &'static str) -> Self {
        Self { end, matched: 0 }
    }

    /// Takes the next character; gives to `text` what cannot belong to the marker. True once the marker is whole.
    pub(super) fn push(&mut self, c: char, mut text: impl FnMut(char)) -> bool {
        let mut seen: Vec<char> = self.end.chars().take(self.matched).collect();
        seen.push(c);
        let mut from = 0;
        while !begins(self.end, &seen[from..]) {
            text(seen[from]);
            from += 1;
        }
        self.matched = seen.len() - from;
        self.matched == self.end.len()
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
