//! The engine: one thread owns the device and turns requests into tokens.
//!
//! [`Engine::start`] takes a loaded model; [`Engine::submit`] returns a [`Stream`] of [`Event`]s. Dropping the stream cancels
//! the request within one step. Within: the scheduler plans a ragged batch with all that encoding it needs, the submitter hands
//! out a slot with an encoder, the model records its ops, sampling follows, and what earlier slots have completed is detokenized
//! and sent.
#![forbid(unsafe_code)]

mod clock;
mod engine;
mod error;
mod events;
mod kv;
mod masks;
mod metrics;
mod options;
mod recovery;
mod request;
mod schedule;
mod sequence;
mod shared;
mod step;
mod stream;
mod worker;

pub use engine::Engine;
pub use error::EngineError;
pub use kv::spill::SpillOptions;
pub use metrics::Metrics;
pub use mlx_serving_model::Pooling;
pub use options::{Info, Options, Parts};
pub use request::{
    Event, Finish, FinishReason, Logprobs, MAX_ALTERNATIVES, MAX_BIASES, PromptToken, Request, Sampling, TokenEvent,
    Usage,
};
pub use shared::{Health, Pace};
pub use stream::{Late, Stream};
