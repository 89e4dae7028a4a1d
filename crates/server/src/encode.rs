//! Prompts as token ids, however they come: every route's one way from text to ids.

use crate::admission::Work;
use crate::error::ApiError;
use crate::state::ServedModel;
use mlx_serving_text::TextError;

/// The ids of a text, if the model's context can hold them; found out in a few MiB of memory, however long the text is, and no longer
/// than somebody waits. `special` puts the model's own begin and end tokens around it.
///
/// # Errors
/// 400 for `prompt`.
pub(crate) fn encode(model: &ServedModel, text: &str, special: bool, work: &Work) -> Result<Vec<u32>, ApiError> {
    let limit = model.engine.info().max_context;
    model.tokenizer.encode_within(text, special, limit, &mut || work.goes_on()).map_err(|error| match error {
        TextError::TooLong { tokens, limit } => {
            ApiError::invalid("prompt", too_long(&format!("at least {tokens}"), limit))
        }
        error => ApiError::invalid("prompt", error.to_string()),
    })
}

fn too_long(tokens: &str, context: usize) -> String {
    format!("the prompt has {tokens} tokens; this model's context holds {context}, the answer included")
}

/// The ids that a client sent, if the model can take them: checked before anything is made of them. A prompt that fills the context can
/// be scored; where an answer is asked for, the engine refuses it.
///
/// # Errors
/// 400 for `prompt`.
pub(crate) fn known(model: &ServedModel, ids: Vec<u32>) -> Result<Vec<u32>, ApiError> {
    let info = model.engine.info();
    if ids.len() > info.max_context {
        return Err(ApiError::invalid("prompt", too_long(&ids.len().to_string(), info.max_context)));
    }
    match ids.iter().find(|&&id| id as usize >= info.vocab) {
        Some(id) => {
            let message = format!("token {id} is outside the vocabulary of {}", info.vocab);
            Err(ApiError::invalid("prompt", message))
        }
        None => Ok(ids),
    }
}
