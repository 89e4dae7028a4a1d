//! Segments: the kinds of text that an answer is made of.

/// A piece of an answer, of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Text for the reader.
    Content(String),
    /// Reasoning, without its markup.
    Reasoning(String),
    /// The beginning of a call; its arguments follow.
    Call {
        /// Name of the function.
        name: String,
    },
    /// A further part of the arguments of the call that began last: JSON, whatever the model's own markup is.
    Arguments(String),
    /// Markup of a call that cannot be read, as the model wrote it. What of it came as a call before is not repeated.
    Malformed(String),
    /// The call that began last never becomes whole. The markup of what came of it, as the model wrote it, for who cannot use a part of a
    /// call; what follows of its markup is [`Malformed`](Self::Malformed).
    Unfinished(String),
}

impl Segment {
    /// Its text, or a call's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Call { name } => name,
            Self::Content(text) | Self::Reasoning(text) | Self::Arguments(text) => text,
            Self::Malformed(text) | Self::Unfinished(text) => text,
        }
    }
}

/// What a reader sees of segments where reasoning and calls have no place of their own.
#[must_use]
pub fn content(segments: &[Segment]) -> String {
    let seen = segments.iter().filter(|s| matches!(s, Segment::Content(_) | Segment::Malformed(_)));
    seen.map(Segment::as_str).collect()
}

/// The reasoning of segments.
#[must_use]
pub fn reasoning(segments: &[Segment]) -> String {
    segments.iter().filter(|s| matches!(s, Segment::Reasoning(_))).map(Segment::as_str).collect()
}
