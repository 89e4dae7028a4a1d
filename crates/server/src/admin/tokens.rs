//! Text to token ids and back.

use crate::error::ApiError;
use crate::generation::{Names, off_thread};
use crate::request::Body;
use crate::request::object::object;
use crate::request::whole::TokenId;
use crate::state::AppState;
use axum::extract::State;
use axum::response::Response;
use mlx_serving_runtime::Input;
use serde_json::json;
use std::sync::Arc;

/// All as the engine has them.
const NAMES: Names = Names(&[]);

object! {
    /// `POST /v1/tokenize`
    pub(crate) struct TokenizeRequest {
        model: String,
        prompt: String = required,
        add_special_tokens: bool,
    }
}

/// Text to token ids.
pub(crate) async fn tokenize(
    State(state): State<Arc<AppState>>,
    Body(request, permit, account): Body<TokenizeRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.model.as_deref())?;
    account.entries().model = Some(model.card().id.clone());
    let max = model.card().info.max_context;
    let special = request.add_special_tokens.unwrap_or(true);
    let input = Input::Text { text: request.prompt, special };
    let tokens = off_thread(permit, &model, move |model, work| NAMES.encode(model, input, work)).await?;
    let charge = state.unread.charge("prompt");
    charge.settle(8 * tokens.len());
    let build = move || json!({ "tokens": tokens, "count": tokens.len(), "max_model_len": max });
    state.admission.whole(charge, build).await
}

object! {
    /// `POST /v1/detokenize`
    pub(crate) struct DetokenizeRequest {
        model: String,
        tokens: Vec<TokenId> = required,
    }
}

/// Token ids to text.
pub(crate) async fn detokenize(
    State(state): State<Arc<AppState>>,
    Body(request, permit, account): Body<DetokenizeRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.model.as_deref())?;
    account.entries().model = Some(model.card().id.clone());
    let tokens: Vec<u32> = request.tokens.into_iter().map(|id| id.0).collect();
    let (count, info) = (tokens.len(), &model.card().info);
    if count > info.max_context {
        return Err(ApiError::context_length("tokens", format!("tokens has {count} entries; {}", info.context())));
    }
    let text = off_thread(permit, &model, move |m, _| {
        if let Some(id) = tokens.iter().find(|&&id| m.tokenizer().id_to_token(id).is_none()) {
            return Err(ApiError::invalid("tokens", format!("the tokenizer has no token {id}")));
        }
        m.tokenizer().decode(&tokens, false).map_err(|e| ApiError::invalid("tokens", e.to_string()))
    });
    let text = text.await?;
    let charge = state.unread.charge("tokens");
    charge.settle(text.len());
    state.admission.whole(charge, move || json!({ "prompt": text })).await
}
