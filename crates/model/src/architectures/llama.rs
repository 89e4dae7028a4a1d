//! Llama 2, 3, 3.1, 3.2: biases where the configuration says so, windows in the layers that it names.

use super::dense::{self, Defaults};
use crate::blueprint::Blueprint;
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};
use mlx_serving_device::ops::Activation;

pub(super) const SHAPES: [Shape; 1] = [Shape { name: "tiny-llama", ..Shape::TINY }];

pub(super) const DEFAULTS: Defaults = Defaults {
    own_kv_heads: true,
    derived_head_dim: true,
    positions: 4096,
    theta: Some(1e4),
    local_theta: None,
    eps: None,
    sizes: &[],
    activation: Activation::Silu,
    windows: dense::typed_windows,
    share: None,
    own: &[],
};

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    parse_with(keys, &DEFAULTS)
}

/// A Llama with other defaults.
pub(super) fn parse_with(keys: &Keys<'_>, defaults: &Defaults) -> Result<Blueprint> {
    let mut model = dense::read(keys, defaults)?;
    let (attention, mlp) = (keys.flag("attention_bias", false)?, keys.flag("mlp_bias", false)?);
    for layer in &mut model.layers {
        (layer.mixer.qkv_bias, layer.mixer.o_bias) = (attention, attention);
        layer.mlp.bias = mlp;
    }
    Ok(model)
}
