//! Granite 3: a Llama with factors of the embedding, of what layers add, of attention's scores and of the logits.

use super::dense::Defaults;
use super::llama;
use crate::blueprint::{Blueprint, Multipliers};
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};

const EMBEDDING: &str = "embedding_multiplier";
const RESIDUAL: &str = "residual_multiplier";
const ATTENTION: &str = "attention_multiplier";
const LOGITS: &str = "logits_scaling";

const NUMBERS: &[(&str, f64)] = &[(EMBEDDING, 12.0), (RESIDUAL, 0.22), (ATTENTION, 0.015_625), (LOGITS, 8.0)];

#[rustfmt::skip]
pub(super) const SHAPES: [Shape; 2] = [
    Shape {
        name: "granite-3.3-2b", hidden: 2048, layers: 40, intermediate: 8192,
        heads: 32, kv_heads: 8, head_dim: 64, vocab: 49_159, tied: true, numbers: NUMBERS, ..Shape::TINY
    },
    Shape { name: "tiny-granite", tied: true, numbers: NUMBERS, ..Shape::TINY },
];

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let own = &[EMBEDDING, RESIDUAL, ATTENTION, LOGITS];
    let mut model = llama::parse_with(keys, &Defaults { own_kv_heads: false, theta: None, own, ..llama::DEFAULTS })?;
    // None has a default: transformers takes 1 where mlx-lm takes nothing, and every model has its own.
    let number = |key| keys.number(key, None, 1e-6..=1e6);
    let scale = number(ATTENTION)? as f32;
    model.layers.iter_mut().for_each(|layer| layer.mixer.scale = scale);
    // Squared, it divides the norms' ε.
    let residual = keys.number(RESIDUAL, None, 1e-2..=1e2)?;
    model.multipliers = Multipliers { embedding: number(EMBEDDING)?, residual, logits: 1.0 / number(LOGITS)? };
    Ok(model)
}
