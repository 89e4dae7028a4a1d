//! Gemma 3 with a vision tower, which is left out: the model of text in it, with other defaults.

use super::dense::Defaults;
use super::{gemma3_text, text_of};
use crate::blueprint::Blueprint;
use mlx_serving_checkpoint::{Keys, Result};

const DEFAULTS: Defaults = Defaults {
    sizes: &[("num_attention_heads", 8), ("num_key_value_heads", 4), ("head_dim", 256), ("vocab_size", 262_208)],
    ..gemma3_text::DEFAULTS
};

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let text = text_of(keys)?;
    text.choice("model_type", &["gemma3_text"])?;
    let model = gemma3_text::parse_with(&text, &DEFAULTS)?;
    // The whole model's vocabulary holds, where both have one.
    Ok(Blueprint { vocab: keys.optional_size("vocab_size", 1 << 24)?.unwrap_or(model.vocab), ..model })
}
