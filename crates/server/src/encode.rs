//! Prompts as token ids, however they come: every route's one way from text to ids.

use crate::admit::Work;
use crate::error::ApiError;
use crate::state::ServedModel;

/// The ids of a text. `special` puts the model's own begin and end tokens around it.
///
/// # Errors
/// 400 for `prompt`.
pub(crate) fn encode(model: &ServedModel, text: &str, special: bool, _work: &Work) -> Result<Vec<u32>, ApiError> {
    model.tokenizer.encode(text, special).map_err(|e| ApiError::invalid("prompt", e.to_string()))
}

/// The ids that a client sent, if the model can take them: checked before anything is made of them.
///
/// # Errors
/// 400 for `prompt`.
pub(crate) fn known(model: &ServedModel, ids: Vec<u32>) -> Result<Vec<u32>, ApiError> {
    let info = model.engine.info();
    if ids.len() >= info.max_context {
        let message = format!(
            "the prompt has {} tokens; this model's context holds {}, the answer included",
            ids.len(),
            info.max_context
        );
        return Err(ApiError::invalid("prompt", message));
    }
    match ids.iter().find(|&&id| id as usize >= info.vocab) {
        Some(id) => {
            let message = format!("token {id} is outside the vocabulary of {}", info.vocab);
            Err(ApiError::invalid("prompt", message))
        }
        None => Ok(ids),
    }
}
