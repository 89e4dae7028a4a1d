//! Architectures: from the keys of `config.json` to a blueprint. One file each, named after `model_type`, with its defaults and quirks.
//! This is the only list of them.

mod dense;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod rope_keys;
mod smollm3;

use crate::blueprint::Blueprint;
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Config, Keys, Result};

/// An architecture.
pub(crate) struct Architecture {
    /// Its `model_type`.
    pub name: &'static str,
    parse: fn(&Keys<'_>) -> Result<Blueprint>,
    /// Shapes of random models.
    pub shapes: &'static [Shape],
}

/// All architectures that are known.
pub(crate) const ALL: &[Architecture] = &[
    Architecture { name: "qwen2", parse: qwen2::parse, shapes: &qwen2::SHAPES },
    Architecture { name: "qwen3", parse: qwen3::parse, shapes: &qwen3::SHAPES },
    Architecture { name: "llama", parse: llama::parse, shapes: &llama::SHAPES },
    Architecture { name: "mistral", parse: mistral::parse, shapes: &mistral::SHAPES },
    Architecture { name: "smollm3", parse: smollm3::parse, shapes: &smollm3::SHAPES },
];

impl Blueprint {
    /// The blueprint of a model with this configuration.
    ///
    /// # Errors
    /// An architecture that is not known; a key that is missing, out of range, or asks for what is not implemented.
    pub fn of(config: &Config) -> Result<Self> {
        let keys = config.keys();
        let named = keys.text("model_type").ok().flatten();
        match ALL.iter().find(|architecture| Some(architecture.name) == named) {
            Some(architecture) => (architecture.parse)(&keys),
            None => {
                let names: Vec<&str> = ALL.iter().map(|architecture| architecture.name).collect();
                Err(keys.bad("model_type", format!("one of the architectures known here: {}", names.join(", "))))
            }
        }
    }
}
