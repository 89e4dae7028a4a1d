//! Memory beside the weights: what sequences leave behind, layer by layer, and what a step needs while it runs.

mod kv;
mod scratch;

pub(crate) use kv::kv_spec;
pub use kv::{BLOCK_TOKENS, KvCache};
pub use scratch::Scratch;

use crate::blueprint::Blueprint;
use mlx_serving_device::Device;
use mlx_serving_metal_layer::WorkingSet;

/// Memory that [`KvCache::new`] and [`Scratch::new`] will allocate for such a model.
pub fn working_set(
    model: &Blueprint,
    device: &dyn Device,
    blocks: usize,
    rows: usize,
    logit_rows: usize,
) -> WorkingSet {
    let layer = |bytes: usize| bytes as u64 * blocks as u64;
    WorkingSet {
        kv_layers: model.layers.len(),
        kv_layer_bytes: kv::block_bytes(model, device).max().map_or(0, layer),
        others: scratch::Sizes::of(model, rows, logit_rows).bytes(device),
    }
}
