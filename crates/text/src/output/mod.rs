//! Output: what is made of an answer's tokens while they come. Everything here is incremental: text is passed on as soon as no further
//! token can change it, and the result does not depend on how the text is cut into pieces.
//!
//! [`AnswerText`] is the one place that knows the order: token → [`crate::Detokenizer`] → text → [`StopMatcher`] → the client's text.
//!
//! A further parser is a file of this room with the shape of [`StopMatcher`]: `push` takes the next piece, `push_hidden` the text of a
//! special token, which is matched and never released, and `finish` gives what was held back. It holds back the longest end of the text
//! that may begin a marker of its own, and nothing else.
//!
//! - What splits an answer into kinds of text, such as reasoning, becomes a file beside `stop.rs`. [`AnswerText`] passes it the text before
//!   the stop strings see it, and [`AnswerStep`] says which kind a piece is.
//! - A format of tool calls becomes a file of `formats/`: the markers that open and close a call, and how the text between them reads.
//!   A table in `formats/mod.rs` says which model writes which.
//!
//! Tests cut one text into pieces in many ways and compare with a search of the whole, as those of `stop.rs` do.

mod answer;
mod stop;

pub use answer::{AnswerStep, AnswerText};
pub use stop::{StopMatcher, StopStep};
