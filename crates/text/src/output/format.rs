//! The markup of one answer: what its model writes around reasoning and calls, the tools that may be called, and where the answer begins.

use super::divide::Divider;
use super::formats::{CallFormat, Formats, Messages, Opening, ReasoningFormat};
use super::sink::Sink;
use super::tools::ToolSchema;
use crate::tokenizer::Tokenizer;
use std::sync::Arc;

/// Markup by which an answer is divided into segments. By default there is none: all of it is content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputFormat {
    formats: Formats,
    tools: Arc<[ToolSchema]>,
    opening: Opening,
}

/// Divides an answer into segments.
#[derive(Debug, Clone)]
pub(super) enum Divide {
    Text(Box<Divider>),
    Messages(Messages),
}

impl OutputFormat {
    /// The format of an answer of a model with these formats, to a prompt whose text ends with `prompt`. Without tools no call is looked
    /// for: markup of calls is content then.
    #[must_use]
    pub fn new(formats: Formats, tools: Vec<ToolSchema>, prompt: &str) -> Self {
        let opening = formats.reasoning.map_or(Opening::Over, |reasoning| reasoning.opening(prompt));
        let calls = formats.calls.filter(|_| !tools.is_empty());
        Self { formats: Formats { calls, ..formats }, tools: tools.into(), opening }
    }

    /// Format of the calls that are looked for.
    #[must_use]
    pub fn calls(&self) -> Option<CallFormat> {
        self.formats.calls
    }

    /// Format of the reasoning that is looked for.
    #[must_use]
    pub fn reasoning(&self) -> Option<ReasoningFormat> {
        self.formats.reasoning
    }

    /// Tools that may be called.
    #[must_use]
    pub fn tools(&self) -> &[ToolSchema] {
        &self.tools
    }

    /// Ids with which the answer may begin to reason; none if the prompt began or ended reasoning, or the model does not reason.
    /// A grammar that holds from the answer's beginning has to admit the first of them too.
    #[must_use]
    pub fn start_of_reasoning(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        match (self.formats.reasoning, self.opening) {
            (Some(reasoning), Opening::Open) => ids(tokenizer, reasoning.markers().0),
            _ => Vec::new(),
        }
    }

    /// Ids that end reasoning wherever it is: what the engine writes for the model once a budget is used up. None if the model does not
    /// reason.
    #[must_use]
    pub fn end_of_reasoning(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        self.formats.reasoning.map_or_else(Vec::new, |reasoning| ids(tokenizer, reasoning.ending()))
    }

    /// The format where the prompt ends with the beginning of the answer, `begun`, with which the model goes on.
    #[must_use]
    pub fn continuing(self, begun: &str) -> Self {
        let opening = self.formats.reasoning.map_or(Opening::Continued, |reasoning| reasoning.opening_after(begun));
        Self { opening, ..self }
    }

    pub(super) fn divider(&self) -> Option<Divide> {
        let formats = self.formats;
        if formats.reasoning == Some(ReasoningFormat::Harmony) || formats.calls == Some(CallFormat::Harmony) {
            return Some(Divide::Messages(Messages::new(self.opening)));
        }
        let divides = formats.reasoning.is_some() || formats.calls.is_some();
        divides.then(|| Divide::Text(Box::new(Divider::new(formats, self.tools.clone(), self.opening))))
    }
}

impl Divide {
    /// Takes text, in pieces as it comes.
    pub(super) fn push(&mut self, text: &str, sink: &mut Sink) {
        text.chars().for_each(|c| self.take(c, false, sink));
    }

    /// Takes a special token.
    pub(super) fn push_hidden(&mut self, token: &str, sink: &mut Sink) {
        let is_markup = match self {
            Self::Text(divider) => divider.is_markup(token),
            Self::Messages(_) => Messages::is_markup(token),
        };
        match self {
            _ if is_markup => token.chars().for_each(|c| self.take(c, true, sink)),
            Self::Text(divider) => divider.push_opaque(token, sink),
            Self::Messages(messages) => messages.push_opaque(token, sink),
        }
    }

    /// Nothing comes any more.
    pub(super) fn finish(&mut self, sink: &mut Sink) {
        match self {
            Self::Text(divider) => divider.finish(sink),
            Self::Messages(messages) => messages.finish(sink),
        }
    }

    /// True within reasoning, or where it may be about to begin.
    pub(super) fn reasons(&self) -> bool {
        match self {
            Self::Text(divider) => divider.reasons(),
            Self::Messages(messages) => messages.reasons(),
        }
    }

    fn take(&mut self, c: char, hidden: bool, sink: &mut Sink) {
        match self {
            Self::Text(divider) => divider.push(c, hidden, sink),
            Self::Messages(messages) => messages.push(c, hidden, sink),
        }
    }
}

/// The ids of a marker. A tokenizer that cannot encode it never wrote it either.
fn ids(tokenizer: &Tokenizer, marker: &str) -> Vec<u32> {
    tokenizer.encode(marker, false).unwrap_or_default()
}
