//! Prompts that cannot be made, as errors of a route.

use crate::admission::Work;
use crate::error::ApiError;
use mlx_serving_runtime::{Generate, Input, PromptError};
use mlx_serving_text::TemplateError;

/// The ids of an input, if the model's context can hold them; no longer than somebody waits.
///
/// # Errors
/// 400 for `prompt`, or for `messages` and `chat_template_kwargs` where a conversation is at fault.
pub(crate) fn encode(model: &dyn Generate, input: Input, work: &Work) -> Result<Vec<u32>, ApiError> {
    model.prompt(input, &mut || work.goes_on()).map_err(|error| match error {
        PromptError::NoTemplate { .. } => ApiError::invalid("messages", format!("{error}; use /v1/completions")),
        PromptError::Template(error @ TemplateError::Reserved { .. }) => {
            ApiError::invalid("chat_template_kwargs", error.to_string())
        }
        PromptError::Template(error) if error.is_client_error() => ApiError::invalid("messages", error.to_string()),
        PromptError::Template(error) => ApiError::internal(error.to_string()),
        error => ApiError::invalid("prompt", error.to_string()),
    })
}
