//! Proof that every backend must give with whole models: logits and greedy answers that are mlx-lm's, with each optimization on
//! and off.
//!
//! The functions fail by panicking, for tests. They open the devices that they are given a function for, one after the other.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod answers;
mod embeddings;
mod logits;

pub use answers::{
    SELECTIONS, company_changes_no_answer, company_changes_no_experts, engines_share_a_device, greedy_answers,
    greedy_answers_of_architectures, sampled_answers,
};
pub use embeddings::embeddings;
pub use logits::logits;

use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::Device;
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_model::{LoadInputs, Model};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder of this repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn load(folder: &Path, device: &Arc<dyn Device>, layer: &MetalLayer) -> Model {
    Model::load(LoadInputs {
        checkpoint: Arc::new(Checkpoint::open(folder).unwrap()),
        device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |_| {},
    })
    .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}
