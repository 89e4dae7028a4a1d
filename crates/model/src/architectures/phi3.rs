//! Phi-3, Phi-3.5 and Phi-4: q, k and v in one tensor, gate and up in another; rotation of a part of each head; long rotary embedding.

use super::dense::{self, Defaults};
use super::llama;
use crate::blueprint::Blueprint;
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};

#[rustfmt::skip]
pub(super) const SHAPES: [Shape; 2] = [
    Shape {
        name: "phi-4-mini", hidden: 3072, layers: 32, intermediate: 8192,
        heads: 24, kv_heads: 8, head_dim: 128, vocab: 200_064, tied: true, numbers: &[(dense::PARTIAL, 0.75)], ..Shape::TINY
    },
    Shape { name: "tiny-phi3", numbers: &[(dense::PARTIAL, 0.75)], ..Shape::TINY },
];

/// Windows as transformers has them; mlx-lm has none.
const DEFAULTS: Defaults =
    Defaults { positions: 131_072, windows: dense::windows_of_all, share: Some(1.0), ..llama::DEFAULTS };

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    dense::no_attention_bias(keys)?;
    let mut model = dense::read(keys, &DEFAULTS)?;
    for layer in &mut model.layers {
        (layer.mixer.fused, layer.mlp.fused) = (true, true);
    }
    Ok(model)
}
