//! Entry point for fuzzing: bytes that come from elsewhere. Whatever they are, it returns.

use crate::Blueprint;
use mlx_serving_checkpoint::Config;
use std::path::Path;

/// A `config.json`.
pub fn config_json(data: &[u8]) {
    let Ok(model) =
        Config::parse(data, Path::new("config.json")).and_then(|config| Blueprint::from_config(&config, false))
    else {
        return;
    };
    for layer in &model.layers {
        assert!(layer.mixer.heads.is_multiple_of(layer.mixer.kv_heads));
        assert!(layer.mixer.rope.is_none_or(|index| index < model.ropes.len()));
    }
}
