//! Qwen3 with experts: in every layer, or in every so many, but for those that are listed.

use super::expert_keys::{self, Names};
use super::qwen3;
use crate::blueprint::{Blueprint, ExpertsSpec};
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};

#[rustfmt::skip]
pub(super) const SHAPES: [Shape; 2] = [
    Shape {
        name: "qwen3-30b-a3b", hidden: 2048, layers: 48, intermediate: 6144,
        heads: 32, kv_heads: 4, head_dim: 128, vocab: 151_936,
        numbers: &[("num_experts", 128.0), ("num_experts_per_tok", 8.0), ("moe_intermediate_size", 768.0)], ..Shape::TINY
    },
    Shape {
        name: "tiny-qwen3_moe",
        numbers: &[("num_experts", 8.0), ("num_experts_per_tok", 2.0), ("moe_intermediate_size", 128.0), ("decoder_sparse_step", 1.0)],
        ..Shape::TINY
    },
];

const COUNT: &str = "num_experts";
const NAMES: Names = Names {
    count: COUNT,
    width: "moe_intermediate_size",
    scoring: ["softmax", "greedy"],
    own: &["norm_topk_prob", "decoder_sparse_step"],
};

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let mut model = qwen3::parse_with(keys, &[COUNT])?;
    let dense = keys.indices("mlp_only_layers", model.layers.len())?;
    let every = keys.optional_size("decoder_sparse_step", 1 << 20)?.unwrap_or(1);
    let renormalize = keys.flag("norm_topk_prob", false)?;
    if keys.optional_count(COUNT)? == Some(0) {
        return Ok(model);
    }
    let experts = expert_keys::read(keys, &model, &NAMES)?;
    for (i, layer) in model.layers.iter_mut().enumerate() {
        if !dense.contains(&i) && (i + 1).is_multiple_of(every) {
            layer.mlp.width = 0;
            layer.experts = Some(ExpertsSpec { renormalize, ..experts.clone() });
        }
    }
    Ok(model)
}
