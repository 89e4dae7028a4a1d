//! Checkpoints in MLX's format: safetensors files and `config.json`, into validated tensors that are read piece by piece. Knows
//! nothing of devices, nor of architectures: what a model's keys mean is said where its architecture is.
//!
//! Nothing is allocated because a header claims a size, and no bytes are trusted: every error is one [`CheckpointError`] that
//! names the file, what was expected and what to do. Files are read, never mapped: one that shrinks meanwhile fails the read.
#![forbid(unsafe_code)]

mod checkpoint;
mod config;
mod embedding;
mod error;
mod file;
#[doc(hidden)]
pub mod fuzz;
mod generation;
mod head;
mod json;
mod keys;
mod parts;
mod quantization;
pub mod script;
mod shard;
pub mod synth;
mod weights;

pub use checkpoint::{Checkpoint, LinearFormat, TensorInfo};
pub use config::Config;
pub use embedding::{Embedding, Pooling};
pub use error::{CheckpointError, Result};
pub use generation::GenerationDefaults;
pub use head::head_of;
pub use json::parse_json;
pub use keys::{Keys, Nesting};
pub use quantization::{Quantization, QuantizationPlan, SmallFloat};
pub use safetensors::Dtype;
pub use weights::WeightFiles;
