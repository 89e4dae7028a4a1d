//! Mixtral: a Mistral whose layers have experts, weighed among those that are chosen.

use super::dense::{self, Defaults};
use super::expert_keys::{self, Names};
use super::llama;
use crate::blueprint::{Blueprint, ExpertsSpec};
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};

const COUNT: &str = "num_local_experts";

#[rustfmt::skip]
pub(super) const SHAPES: [Shape; 2] = [
    Shape {
        name: "mixtral-8x7b", hidden: 4096, layers: 32, intermediate: 14_336,
        heads: 32, kv_heads: 8, head_dim: 128, vocab: 32_000,
        numbers: &[(COUNT, 8.0), ("num_experts_per_tok", 2.0)], ..Shape::TINY
    },
    Shape { name: "tiny-mixtral", numbers: &[(COUNT, 4.0), ("num_experts_per_tok", 2.0)], ..Shape::TINY },
];

#[rustfmt::skip]
const DEFAULTS: Defaults = Defaults {
    positions: 131_072, theta: Some(1e6), windows: dense::windows_of_all, own: &[COUNT], ..llama::DEFAULTS
};
const NAMES: Names = Names { count: COUNT, width: "intermediate_size", scoring: ["softmax", "greedy"], own: &[] };

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    dense::no_attention_bias(keys)?;
    let mut model = dense::read(keys, &DEFAULTS)?;
    let experts = ExpertsSpec {
        router: "block_sparse_moe.gate",
        stacks: [
            "block_sparse_moe.switch_mlp.gate_proj",
            "block_sparse_moe.switch_mlp.up_proj",
            "block_sparse_moe.switch_mlp.down_proj",
        ],
        ..expert_keys::read(keys, &model, &NAMES)?
    };
    for layer in &mut model.layers {
        layer.mlp.width = 0;
        layer.experts = Some(experts.clone());
    }
    Ok(model)
}
