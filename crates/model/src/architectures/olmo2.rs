//! OLMo 2: a Llama with its norms behind attention and feed-forward network, and norms over all query heads and all key heads.

use super::llama;
use crate::blueprint::{Blueprint, Norms, QkNorms};
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};

#[rustfmt::skip]
pub(super) const SHAPES: [Shape; 2] = [
    Shape {
        name: "olmo2-1b", hidden: 2048, layers: 16, intermediate: 8192,
        heads: 16, kv_heads: 16, head_dim: 128, vocab: 100_352, ..Shape::TINY
    },
    Shape { name: "tiny-olmo2", ..Shape::TINY },
];

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let mut model = llama::parse(keys)?;
    for layer in &mut model.layers {
        layer.mixer.norms = Norms { before: None, after: Some("post_attention_layernorm") };
        layer.mlp.norms = Norms { before: None, after: Some("post_feedforward_layernorm") };
        layer.mixer.qk_norms = Some(QkNorms::Whole);
    }
    Ok(model)
}
