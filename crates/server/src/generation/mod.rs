//! Generation: what every dialect asks of a model, and what it gets.
//!
//! A dialect reads its JSON into an [`Ask`] and hands it to [`answer`], together with the [`Writer`] of its JSON. Everything between is
//! here and the same for all: prompts are encoded off the runtime's threads, the requests submitted, the choices' events merged into
//! [`Delta`]s, whole answers collected and counted, tokens added up, and errors given the client's names of parameters.
//!
//! Text comes as segments: content, reasoning, calls and their arguments. [`Answer`] joins them for whole answers; [`Told`] says of a stream
//! which [`Ending`] it has.

mod ask;
mod delta;
mod run;
#[cfg(test)]
mod tests;

pub(crate) use ask::{Ask, Names};
pub(crate) use delta::{Answer, Call, Cost, Delta, Ending, Token, Told};
pub(crate) use run::{Writer, answer, off_thread};
