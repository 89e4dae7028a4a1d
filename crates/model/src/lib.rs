//! Models: weights in device memory, and forward passes that record ops.
//!
//! An architecture (`architectures/`, one file each) turns a configuration into a [`Blueprint`]; blocks (`blocks/`) load and record what
//! it lists. [`Model::load`] moves a checkpoint to a device; [`Model::forward`] records one step of a ragged batch. Sequence state (KV
//! cache) and scratch memory (`state/`) are passed in.
#![forbid(unsafe_code)]

mod architectures;
mod blocks;
mod blueprint;
mod contradictions;
mod error;
pub mod eval;
#[doc(hidden)]
pub mod fuzz;
pub mod inputs;
mod load;
mod model;
mod modules;
mod rope;
mod state;
pub mod synth;

pub use architectures::architectures;
pub use blueprint::{
    AttentionSpec, Blueprint, Division, ExpertsSpec, HeadWeights, LayerSpec, LinearSpec, MlpPath, MlpSpec, Multipliers,
    NormSpec, Norms, QkNorms, ScoringSpec, StackSpec,
};
pub use contradictions::refuse_contradictions;
pub use error::ModelError;
pub use inputs::Step;
pub use load::{LoadInputs, LoadProgress, row_parts};
pub use mlx_serving_checkpoint::Pooling;
pub use model::Model;
pub use modules::modules;
pub use rope::{Rope, Scaling};
pub use state::{BLOCK_TOKENS, KvCache, Scratch, working_set};
