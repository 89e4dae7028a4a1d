//! `POST /v1/messages` and `POST /v1/messages/count_tokens`

use super::events::MessageWriter;
use super::request::MessagesRequest;
use crate::error::ApiError;
use crate::generation;
use crate::request::{Body, UnqueuedBody, tools};
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers a conversation.
pub(super) async fn messages(
    State(state): State<Arc<AppState>>,
    Body(request, permit, account): Body<MessagesRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.model.as_deref())?;
    request.log(&model.card().id);
    let (ask, details) = request.ask(&model.card().defaults, state.strip_billing_header)?;
    let foreign = details.foreign.clone();
    let writer =
        move |model: &dyn mlx_serving_runtime::Generate, _: &[_]| Ok(MessageWriter::new(&model.card().id, details));
    let mut response = generation::answer(&state, &model, (permit, account), ask, writer).await?;
    tools::tell_ignored(&mut response, &foreign);
    Ok(response)
}

/// Counts the tokens of a conversation, beside the answers that are computed and the requests that wait.
pub(super) async fn count_tokens(
    State(state): State<Arc<AppState>>,
    UnqueuedBody(request, permit, account): UnqueuedBody<MessagesRequest>,
) -> Result<Json<Value>, ApiError> {
    let model = state.model(request.model.as_deref())?;
    account.entries().model = Some(model.card().id.clone());
    let (input, names) = request.prompt(state.strip_billing_header)?;
    let ids = permit.work(move |work| names.encode(&*model, input, work)).await?;
    Ok(Json(json!({ "input_tokens": ids.len() })))
}
