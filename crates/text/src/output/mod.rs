//! Output: what is made of an answer's tokens while they come. Everything here is incremental: text is passed on as soon as no further
//! token can change it, and the result does not depend on how the text is cut into pieces.
//!
//! [`AnswerText`] is the one place that knows the order: token → [`crate::Detokenizer`] → text → `Divide`, which splits it by the answer's
//! [`OutputFormat`] → content → [`StopMatcher`] → [`Segment`]s. Where no format is looked for, all text is content.
//!
//! All readers take a text a character at a time, so that no cut can matter. What may still become something else is held back, and nothing
//! else. Special tokens are markup where the format has them, and never text.
//!
//! - A format of calls is a file of `formats/`: the markers that open and close a call, and a reader of what is between them.
//! - `Sink` takes what the readers find.
//!
//! Tests cut one text into pieces in many ways and compare with what it means, as those of `stop.rs` do.

mod answer;
mod divide;
mod format;
mod formats;
mod json;
mod loose;
mod segment;
mod sink;
mod step;
mod stop;
mod surrogates;
mod tools;

pub use answer::{AnswerStep, AnswerText};
pub use format::OutputFormat;
pub use formats::{CallFormat, Formats, ReasoningFormat};
pub use segment::{Segment, content, reasoning};
pub use stop::{StopMatcher, StopStep};
pub use tools::ToolSchema;

/// The segments of an answer that comes in these pieces, each hidden or not, neighbors of one kind joined; for fuzzing and tests.
pub(crate) fn divide(format: &OutputFormat, pieces: &[(String, bool)]) -> Vec<Segment> {
    let Ok(stops) = StopMatcher::new::<&str>(&[]) else { return Vec::new() };
    let (mut divide, mut sink) = (format.divider(), sink::Sink::new(stops));
    for (text, hidden) in pieces {
        match (&mut divide, hidden) {
            (Some(divide), true) => divide.push_hidden(text, &mut sink),
            (Some(divide), false) => divide.push(text, &mut sink),
            (None, true) => sink.hidden(text),
            (None, false) => sink.contents(text),
        }
    }
    if let Some(divide) = &mut divide {
        divide.finish(&mut sink);
    }
    sink.finish()
}

#[cfg(test)]
mod tests;
