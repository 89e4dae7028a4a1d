//! The engine: one thread owns the device and turns requests into tokens.
//!
//! [`Engine::start`] takes a loaded model; [`Engine::submit`] returns a [`Stream`] of [`Event`]s. Dropping the stream cancels
//! the request within one step. Within: the scheduler plans a ragged batch, the submitter hands out a slot with an encoder, the
//! model records its ops, sampling follows, and what earlier slots have completed is detokenized and sent.
#![forbid(unsafe_code)]

mod block_pool;
mod client;
mod clock;
mod error;
mod events;
mod handle;
mod logprobs;
mod metrics;
mod request;
mod scheduler;
mod spill;
mod spill_file;
mod step;
mod stream;
mod uniforms;
mod worker;

pub use error::EngineError;
pub use handle::{Engine, Health, Info, Options, Pace};
pub use metrics::Metrics;
pub use request::{Event, Finish, FinishReason, Logprobs, PromptToken, Request, Sampling, TokenEvent, Usage};
pub use spill::SpillOptions;
pub use stream::{Late, Stream};
pub use worker::Parts;
