//! Checkpoints in MLX's format: safetensors files and `config.json`, into validated and memory-mapped tensors. Knows nothing of
//! devices.
//!
//! Nothing is allocated because a header claims a size, and no bytes are trusted: every error is one [`CheckpointError`] that
//! names the file, what was expected and what to do. The only `unsafe` maps files for reading and drops their pages.
#![deny(unsafe_code)]

mod checkpoint;
mod config;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod generation;
mod json;
mod quantization;
mod shard;
pub mod synth;

pub use checkpoint::{Checkpoint, LinearTensors, TensorView};
pub use config::{Config, MODEL_TYPES, Rope, RopeScaling};
pub use error::CheckpointError;
pub use generation::GenerationDefaults;
pub use quantization::{Quantization, QuantizationPlan};
pub use safetensors::Dtype;
