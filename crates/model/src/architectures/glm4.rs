//! GLM-4 (0414): norms in front of and behind each part; gate and up in one tensor; neighbors of a part of each head rotate as pairs.

use super::dense::{self, Defaults};
use super::llama;
use crate::blueprint::{Blueprint, Norms};
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};

const NUMBERS: &[(&str, f64)] = &[(dense::PARTIAL, 0.5)];

#[rustfmt::skip]
pub(super) const SHAPES: [Shape; 2] = [
    Shape {
        name: "glm-4-9b", hidden: 4096, layers: 40, intermediate: 13_696,
        heads: 32, kv_heads: 2, head_dim: 128, vocab: 151_552, numbers: NUMBERS, ..Shape::TINY
    },
    Shape { name: "tiny-glm4", numbers: NUMBERS, ..Shape::TINY },
];

#[rustfmt::skip]
pub(super) const DEFAULTS: Defaults = Defaults {
    own_kv_heads: false, derived_head_dim: false, positions: 32_768, theta: None, share: Some(0.5), ..llama::DEFAULTS
};

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let mut model = dense::read(keys, &DEFAULTS)?;
    let bias = keys.flag("attention_bias", false)?;
    for layer in &mut model.layers {
        layer.mixer.qkv_bias = bias;
        layer.mixer.norms = Norms { before: Some("input_layernorm"), after: Some("post_self_attn_layernorm") };
        layer.mlp.norms = Norms { before: Some("post_attention_layernorm"), after: Some("post_mlp_layernorm") };
        layer.mlp.fused = true;
    }
    for rope in &mut model.ropes {
        rope.interleaved = keys.flag("rope_traditional", true)?;
    }
    Ok(model)
}
