//! Architectures: from the keys of `config.json` to a blueprint. One file each, named after `model_type`, with its defaults and quirks.
//! This is the only list of them.

mod dense;
mod expert_keys;
mod gemma3;
mod gemma3_text;
mod glm4;
mod glm4_moe;
mod granite;
mod llama;
mod ministral3;
mod mistral;
mod mistral3;
mod mixtral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod rope_keys;
mod smollm3;

pub(crate) use dense::TIED;

use crate::blocks::{Embedding, Head};
use crate::blueprint::{Blueprint, HeadWeights, WRAPPED_ROOT};
use dense::ROOT;
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Checkpoint, Config, Keys, Result};

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
    Architecture { name: "olmo2", parse: olmo2::parse, shapes: &olmo2::SHAPES },
    Architecture { name: "granite", parse: granite::parse, shapes: &granite::SHAPES },
    Architecture { name: "phi3", parse: phi3::parse, shapes: &phi3::SHAPES },
    Architecture { name: "glm4", parse: glm4::parse, shapes: &glm4::SHAPES },
    Architecture { name: "gemma3_text", parse: gemma3_text::parse, shapes: &gemma3_text::SHAPES },
    Architecture { name: "gemma3", parse: gemma3::parse, shapes: &[] },
    Architecture { name: "ministral3", parse: ministral3::parse, shapes: &ministral3::SHAPES },
    Architecture { name: "mistral3", parse: mistral3::parse, shapes: &[] },
    Architecture { name: "qwen3_moe", parse: qwen3_moe::parse, shapes: &qwen3_moe::SHAPES },
    Architecture { name: "mixtral", parse: mixtral::parse, shapes: &mixtral::SHAPES },
    Architecture { name: "glm4_moe", parse: glm4_moe::parse, shapes: &glm4_moe::SHAPES },
];

/// Modules that may hold all but the head, the first of them that has an embedding: models of text, and embedding models; models of more
/// than text as mlx-lm writes them, and as transformers does.
const ROOTS: [&str; 4] = [ROOT, "", WRAPPED_ROOT, "model.language_model"];
/// Key of a model of more than text, for the keys of its model of text.
const TEXT: &str = "text_config";

/// Keys that say whether the head's weights are the embedding's: those of the model of text, where it is a part of another, or else the
/// whole model's; `None` where neither does.
///
/// # Errors
/// `text_config` is not an object.
pub(crate) fn says_tied(config: &Config) -> Result<Option<Keys<'_>>> {
    let keys = config.keys();
    Ok([keys.object(TEXT)?, Some(keys)].into_iter().flatten().find(|keys| keys.has(TIED)))
}

/// Keys of the model of text in a model of more.
fn text_of<'a>(keys: &Keys<'a>) -> Result<Keys<'a>> {
    keys.object(TEXT)?.ok_or_else(|| keys.bad(TEXT, "an object: the keys of the model of text"))
}

/// Architectures that are known, by their `model_type`.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|architecture| architecture.name)
}

impl Blueprint {
    /// The blueprint of a checkpoint's model. It has no head where the files call it an embedding model, nor where one of its own would
    /// be needed and the checkpoint has none, which is how embedding models are published.
    ///
    /// # Errors
    /// As for [`Self::from_config`].
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let own_head = Head::is_in(checkpoint);
        let mut model = Self::from_config(&checkpoint.config, own_head)?;
        let lacks = model.head == Some(HeadWeights::Own) && !own_head;
        model.head = model.head.filter(|_| checkpoint.embedding.is_none() && !lacks);
        model.root = ROOTS.into_iter().find(|root| Embedding::is_in(checkpoint, root)).unwrap_or(ROOT);
        Ok(model)
    }

    /// The blueprint of a model with this configuration. Where that does not say whether the head's weights are the embedding's, they are
    /// unless the checkpoint brings some (`own_head`): mlx-lm leaves them out of tied models, transformers ties none that has them.
    ///
    /// # Errors
    /// An architecture that is not known; a key that is missing, out of range, or asks for what is not implemented.
    pub fn from_config(config: &Config, own_head: bool) -> Result<Self> {
        let keys = config.keys();
        let named = keys.text("model_type").ok().flatten();
        let Some(architecture) = ALL.iter().find(|architecture| Some(architecture.name) == named) else {
            let names: Vec<&str> = architectures().collect();
            return Err(keys.bad("model_type", format!("one of the architectures known here: {}", names.join(", "))));
        };
        let model = (architecture.parse)(&keys)?;
        let tied = match says_tied(config)? {
            Some(keys) => keys.flag(TIED, true)?,
            None => !own_head,
        };
        Ok(Self { head: Some(if tied { HeadWeights::Tied } else { HeadWeights::Own }), ..model })
    }
}
