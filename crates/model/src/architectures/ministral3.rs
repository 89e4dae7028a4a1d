//! Ministral 3: a Llama whose queries grow with their position.

use super::dense::{self, Defaults};
use super::{llama, rope_keys};
use crate::blueprint::Blueprint;
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};

#[rustfmt::skip]
pub(super) const SHAPES: [Shape; 2] = [
    Shape {
        name: "ministral-3-8b", hidden: 4096, layers: 34, intermediate: 14_336,
        heads: 32, kv_heads: 8, head_dim: 128, vocab: 131_072, ..Shape::TINY
    },
    Shape { name: "tiny-ministral3", ..Shape::TINY },
];

const DEFAULTS: Defaults =
    Defaults { theta: None, windows: dense::windows_of_all, own: &[rope_keys::GROWTH], ..llama::DEFAULTS };

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    for key in ["attention_bias", "mlp_bias"] {
        keys.refuse_unless(key, Some(0.0))?;
    }
    llama::parse_with(keys, &DEFAULTS)
}
