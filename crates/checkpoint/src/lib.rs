//! Checkpoints in MLX's format: safetensors files and `config.json`, into validated tensors that are read piece by piece. Knows
//! nothing of devices.
//!
//! Nothing is allocated because a header claims a size, and no bytes are trusted: every error is one [`CheckpointError`] that
//! names the file, what was expected and what to do. Files are read, never mapped: one that shrinks meanwhile fails the read.
#![forbid(unsafe_code)]

mod checkpoint;
mod config;
mod error;
mod file;
#[doc(hidden)]
pub mod fuzz;
mod generation;
mod json;
mod keys;
mod quantization;
mod rope;
mod shard;
pub mod synth;

pub use checkpoint::{Checkpoint, LinearFormat, TensorInfo};
pub use config::{Config, MODEL_TYPES};
pub use error::CheckpointError;
pub use generation::GenerationDefaults;
pub use quantization::{Quantization, QuantizationPlan};
pub use rope::{Rope, RopeScaling};
pub use safetensors::Dtype;
