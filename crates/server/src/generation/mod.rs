//! Generation: what every dialect asks of a model, and what it gets.
//!
//! A dialect reads its JSON into an [`Ask`] and hands it to [`answer`], together with the [`Writer`] of its JSON. Everything between is
//! here and the same for all: prompts are encoded off the runtime's threads, the requests submitted, the choices' events merged into
//! [`Delta`]s, whole answers collected and counted, tokens added up, and errors given the client's names of parameters.
//!
//! Output beyond text, such as reasoning, becomes a variant of [`Delta`], which every writer then has to write.

mod ask;
mod delta;
mod run;
#[cfg(test)]
mod tests;

pub(crate) use ask::{Ask, Names};
pub(crate) use delta::{Answer, Cost, Delta, Token};
pub(crate) use run::{Writer, answer, off_thread};
