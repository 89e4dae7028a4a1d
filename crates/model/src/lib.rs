//! Models: weights in device memory, and forward passes that record ops. One file an architecture, named after `model_type`.
//!
//! [`Model::load`] moves a checkpoint to a device; [`Model::forward`] records one step of a ragged batch. Sequence state — KV
//! cache, scratch memory — is passed in.
#![forbid(unsafe_code)]

mod error;
pub mod eval;
mod llama;
mod load;
mod memory;
mod mistral;
mod model;
mod pass;
mod qwen2;
mod qwen3;
mod rope;
mod rows;

pub use error::ModelError;
pub use load::{LoadProgress, Source, row_parts};
pub use memory::{KvCache, Scratch, working_set};
pub use model::{BLOCK_TOKENS, Model, Step};
