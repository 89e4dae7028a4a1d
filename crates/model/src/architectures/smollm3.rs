//! SmolLM3: a Llama in which every n-th layer has no rotary embedding.

use super::llama;
use crate::blueprint::Blueprint;
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};

pub(super) const SHAPES: [Shape; 1] = [Shape { name: "tiny-smollm3", layers: 4, tied: true, ..Shape::TINY }];

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let mut model = llama::parse(keys)?;
    let layers = model.layers.len();
    let interval = keys.optional_size("no_rope_layer_interval", 1 << 20)?.unwrap_or(4);
    // The key's name notwithstanding, true is a layer that rotates.
    let rotates = keys.flags("no_rope_layers", layers)?;
    let rotates: Vec<bool> =
        rotates.unwrap_or_else(|| (1..=layers).map(|number| !number.is_multiple_of(interval)).collect());
    // transformers gives windows to the layers that rotate nothing; mlx-lm knows only those that `layer_types` names.
    let windows = keys.flag("use_sliding_window", false)? && keys.has("sliding_window") && !keys.has("layer_types");
    if windows && rotates.contains(&false) {
        return Err(keys.bad("use_sliding_window", "false, or layer_types beside it"));
    }
    for (layer, rotates) in model.layers.iter_mut().zip(rotates) {
        layer.mixer.rope = layer.mixer.rope.filter(|_| rotates);
    }
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_serving_checkpoint::Config;
    use std::path::Path;

    /// Layers that rotate, of four.
    fn rotating(more: &str) -> Result<Vec<usize>> {
        let keys = format!(
            r#"{{ "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 99,
                 "rms_norm_eps": 1e-6 {more} }}"#
        );
        let model = parse(&Config::parse(keys.as_bytes(), Path::new("config.json"))?.keys())?;
        Ok((0..4).filter(|&i| model.layers[i].mixer.rope.is_some()).collect())
    }

    #[test]
    fn every_fourth_layer_rotates_nothing_unless_the_configuration_says_otherwise() {
        assert_eq!(rotating("").unwrap(), [0, 1, 2]);
        assert_eq!(rotating(r#", "no_rope_layer_interval": 2"#).unwrap(), [0, 2]);
        assert_eq!(rotating(r#", "no_rope_layer_interval": 2, "no_rope_layers": [0, 1, 1, 0]"#).unwrap(), [1, 2]);
        let error = rotating(r#", "no_rope_layers": [0, 1]"#).unwrap_err().to_string();
        assert!(error.contains("no_rope_layers is [0,1], expected a list of 4 values"), "{error}");
        let error = rotating(r#", "use_sliding_window": true, "sliding_window": 8"#).unwrap_err().to_string();
        assert!(error.contains("use_sliding_window is true, expected false"), "{error}");
        for reaching_none in [r#""sliding_window": null"#, r#""sliding_window": 8, "no_rope_layers": [1, 1, 1, 1]"#] {
            rotating(&format!(r#", "use_sliding_window": true, {reaching_none}"#)).unwrap();
        }
    }
}
