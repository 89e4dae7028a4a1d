//! Qwen2 and Qwen2.5: biases on q, k and v.

use super::dense::{self, Defaults};
use super::llama;
use crate::blueprint::Blueprint;
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};

#[rustfmt::skip]
const QWEN_0_5B: Shape = Shape {
    name: "qwen2.5-0.5b", hidden: 896, layers: 24, intermediate: 4864,
    heads: 14, kv_heads: 2, head_dim: 64, vocab: 151_936, tied: true, ..Shape::TINY
};

#[rustfmt::skip]
pub(super) const SHAPES: [Shape; 4] = [
    QWEN_0_5B,
    Shape { name: "qwen2.5-1.5b", hidden: 1536, layers: 28, intermediate: 8960, heads: 12, head_dim: 128, ..QWEN_0_5B },
    Shape {
        name: "qwen2.5-7b", hidden: 3584, layers: 28, intermediate: 18_944,
        heads: 28, kv_heads: 4, head_dim: 128, vocab: 152_064, ..Shape::TINY
    },
    Shape { name: "tiny-qwen2", tied: true, ..Shape::TINY },
];

/// Layers before the first with a window, as transformers has it.
const MAX_WINDOW_LAYERS: usize = 28;

pub(super) const DEFAULTS: Defaults =
    Defaults { own_kv_heads: false, positions: 32_768, theta: Some(1e6), windows: no_windows, ..llama::DEFAULTS };

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let mut model = dense::read(keys, &DEFAULTS)?;
    model.layers.iter_mut().for_each(|layer| layer.mixer.qkv_bias = true);
    Ok(model)
}

/// mlx-lm gives these models no windows and refuses none; one that reaches a layer is refused here.
fn no_windows(keys: &Keys<'_>, layers: usize) -> Result<Vec<Option<usize>>> {
    let none = Ok(vec![None; layers]);
    // Where the key is left out, transformers has a window; null is none.
    if !keys.flag("use_sliding_window", false)? || keys.is_null("sliding_window") {
        return none;
    }
    let reaches = match dense::sliding(keys, layers)? {
        Some(slides) => slides.contains(&true),
        None => keys.optional_count("max_window_layers")?.unwrap_or(MAX_WINDOW_LAYERS) < layers,
    };
    match reaches {
        false => none,
        true => {
            let expected = "false, or windows that reach no layer (max_window_layers, layer_types): those of this architecture are not implemented";
            Err(keys.bad("use_sliding_window", expected))
        }
    }
}
