//! Mistral 3 with a vision tower, which is left out: a Ministral 3, or an older Mistral, as its model of text.

use super::{llama, ministral3, mistral, text_of};
use crate::blueprint::Blueprint;
use mlx_serving_checkpoint::{Keys, Result};

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let text = text_of(keys)?;
    match text.choice("model_type", &["ministral3", "mistral", "llama"])? {
        Some("ministral3") => ministral3::parse(&text),
        Some("llama") => llama::parse(&text),
        _ => mistral::parse(&text),
    }
}
