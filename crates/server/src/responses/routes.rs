//! `POST /v1/responses`, and `GET` and `DELETE` of those that are kept.

use super::events::ResponseWriter;
use super::request::{Asked, ResponseRequest};
use crate::error::ApiError;
use crate::generation;
use crate::request::{Body, tools};
use crate::routes::Routes;
use crate::state::AppState;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// The dialect's routes.
pub(crate) fn routes() -> Routes {
    Routes::default()
        .post("/v1/responses", create)
        .get("/v1/responses/{id}", retrieve)
        .delete("/v1/responses/{id}", delete)
}

/// Answers a conversation.
async fn create(
    State(state): State<Arc<AppState>>,
    Body(request, permit, account): Body<ResponseRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.model.as_deref())?;
    let card = model.card();
    request.log(&card.id);
    let store = state.responses.clone();
    let Asked { ask, frame, conversation, foreign } = request.asked(&card.id, &card.defaults, &store)?;
    let keep = conversation.map(|conversation| (store, conversation));
    let writer = move |_: &dyn mlx_serving_runtime::Generate, _: &[_]| Ok(ResponseWriter::new(frame, keep));
    let mut response = generation::answer(&state, &model, (permit, account), ask, writer).await?;
    tools::tell_ignored(&mut response, &foreign);
    Ok(response)
}

/// A response that is kept, as it was sent.
async fn retrieve(
    State(state): State<Arc<AppState>>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, ApiError> {
    if uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "stream=true")) {
        return Err(ApiError::invalid(
            "stream",
            "stream is true, but the events of a response are not kept; leave it out",
        ));
    }
    let stored = state.responses.find(&of(id))?;
    Ok(([(CONTENT_TYPE, "application/json")], stored.json.clone()).into_response())
}

/// Forgets a response.
async fn delete(
    State(state): State<Arc<AppState>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let id = of(id);
    state.responses.forget(&id)?;
    Ok(Json(json!({ "id": id, "object": "response", "deleted": true })))
}

/// The id of a path. What is not UTF-8 is no response's.
fn of(id: Result<Path<String>, PathRejection>) -> String {
    id.map_or_else(|_| String::new(), |Path(id)| id)
}
