//! Gemma 3: norms in front of and behind each part, whose weights are kept as what they differ from 1 by; a gate of GELU; windows in
//! five of six layers, which have a rotary embedding of their own.

use super::dense::{self, Defaults};
use super::{llama, rope_keys};
use crate::blueprint::{Blueprint, Multipliers, Norms, QkNorms};
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};
use mlx_serving_device::ops::Activation;

const SCALE: &str = "query_pre_attn_scalar";
const PATTERN: &str = "sliding_window_pattern";
const WINDOW: &str = "sliding_window";

#[rustfmt::skip]
pub(super) const SHAPES: [Shape; 2] = [
    Shape {
        name: "gemma-3-4b", hidden: 2560, layers: 34, intermediate: 10_240,
        heads: 8, kv_heads: 4, head_dim: 256, vocab: 262_208, tied: true, activation: ACTIVATION, numbers: &[(WINDOW, 1024.0)],
    },
    Shape {
        name: "tiny-gemma3", tied: true, activation: ACTIVATION, numbers: &[(WINDOW, 16.0), (PATTERN, 2.0), (SCALE, 32.0)], ..Shape::TINY
    },
];
const ACTIVATION: &str = "gelu_pytorch_tanh";

/// As in mlx-lm, but for the longest context, which it has no use for.
pub(super) const DEFAULTS: Defaults = Defaults {
    own_kv_heads: false,
    derived_head_dim: false,
    positions: 131_072,
    theta: Some(1e6),
    local_theta: Some(1e4),
    eps: Some(1e-6),
    sizes: &[("num_attention_heads", 4), ("num_key_value_heads", 1), ("head_dim", 256), ("vocab_size", 262_144)],
    activation: Activation::GeluTanh,
    windows,
    own: &[SCALE, rope_keys::LOCAL_THETA],
    ..llama::DEFAULTS
};

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    parse_with(keys, &DEFAULTS)
}

/// A Gemma 3 with other defaults.
pub(super) fn parse_with(keys: &Keys<'_>, defaults: &Defaults) -> Result<Blueprint> {
    dense::no_attention_bias(keys)?;
    let mut model = dense::read(keys, defaults)?;
    model.norm_offset = 1.0;
    model.multipliers = Multipliers { embedding: to_bf16((model.hidden as f32).sqrt()).into(), ..Multipliers::NONE };
    let scale = keys.number(SCALE, Some(256.0), 1e-3..=1e6)?.powf(-0.5) as f32;
    for layer in &mut model.layers {
        layer.mixer.scale = scale;
        layer.mixer.qk_norms = Some(QkNorms::Heads);
        layer.mixer.norms = Norms { before: Some("input_layernorm"), after: Some("post_attention_layernorm") };
        layer.mlp.norms =
            Norms { before: Some("pre_feedforward_layernorm"), after: Some("post_feedforward_layernorm") };
    }
    Ok(model)
}

/// Windows of the layers that `layer_types` names sliding, which `sliding_window_pattern` may say too: all but each n-th.
fn windows(keys: &Keys<'_>, layers: usize) -> Result<Vec<Option<usize>>> {
    let window = keys.optional_size(WINDOW, 1 << 28)?.unwrap_or(512);
    let pattern = keys.optional_size(PATTERN, 1 << 20)?;
    let by_pattern = |every: usize| (1..=layers).map(|number| !number.is_multiple_of(every)).collect::<Vec<bool>>();
    let slides: Vec<bool> = match (dense::sliding(keys, layers)?, pattern) {
        (Some(typed), Some(every)) if typed != by_pattern(every) => {
            return Err(keys.bad(PATTERN, "what layer_types says of the same layers"));
        }
        (Some(typed), _) => typed,
        (None, every) => by_pattern(every.unwrap_or(6)),
    };
    Ok(slides.into_iter().map(|slides| slides.then_some(window)).collect())
}

/// The nearest number of bf16, ties to even: models are trained with the factor of their embedding rounded so.
fn to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_rounded_to_bf16() {
        // √2560 is 50.596, between 50.5 and 50.75; √1152 is 33.941, between 33.75 and 34.
        assert_eq!([2560f32, 1152.0, 4.0].map(|width| to_bf16(width.sqrt())), [50.5, 34.0, 2.0]);
    }
}
