//! Models that are open on this machine, and generation with them: what every public face of the project stands on.
//!
//! | type | does |
//! | --- | --- |
//! | [`Model`] | an engine with its tokenizer and chat template |
//! | [`Conversation`], [`Input`] | what a model is asked |
//! | [`Generate`] | what a public face needs of a model; scripts implement it in tests |
#![forbid(unsafe_code)]

mod conversation;
mod generate;
mod model;
mod prompt;

pub use conversation::{Conversation, Message, Role};
pub use generate::{Card, Events, Generate};
pub use model::Model;
pub use prompt::{Input, PromptError};
