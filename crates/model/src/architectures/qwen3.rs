//! Qwen3: a norm on each query and key head; a head's width and the rotary base must be given.

use super::dense::{self, Defaults};
use super::qwen2;
use crate::blueprint::{Blueprint, QkNorms};
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};

pub(super) const SHAPES: [Shape; 1] = [Shape { name: "tiny-qwen3", head_dim: 64, ..Shape::TINY }];

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    parse_with(keys, &[])
}

/// A Qwen3 that has keys which are its own.
pub(super) fn parse_with(keys: &Keys<'_>, own: &'static [&'static str]) -> Result<Blueprint> {
    dense::no_attention_bias(keys)?;
    let mut model = dense::read(keys, &Defaults { derived_head_dim: false, theta: None, own, ..qwen2::DEFAULTS })?;
    model.layers.iter_mut().for_each(|layer| layer.mixer.qk_norms = Some(QkNorms::Heads));
    Ok(model)
}
