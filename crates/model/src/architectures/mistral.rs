//! Mistral: a Llama whose window is every layer's unless the configuration names those that have it.

use super::dense::{self, Defaults};
use super::llama;
use crate::blueprint::Blueprint;
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};

pub(super) const SHAPES: [Shape; 1] = [Shape { name: "tiny-mistral", ..Shape::TINY }];

/// mlx-lm knows only the layers that are named; Mistral 7B v0.1 names none and means all.
pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    llama::parse_with(keys, &Defaults { windows: dense::windows_of_all, ..llama::DEFAULTS })
}
