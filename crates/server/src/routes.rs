//! The small routes: models, tokens, health, statistics.

use crate::answer;
use crate::body::Body;
use crate::error::ApiError;
use crate::metrics;
use crate::state::{AppState, Condition};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /v1/models`
pub(crate) async fn models(State(state): State<Arc<AppState>>) -> Json<Value> {
    let data: Vec<Value> = state.models().iter().map(|m| describe(m)).collect();
    Json(json!({ "object": "list", "data": data }))
}

/// `GET /v1/models/{id}`
pub(crate) async fn model(
    State(state): State<Arc<AppState>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(id) = id.map_err(|e| ApiError::invalid("model", e.body_text()))?;
    Ok(Json(describe(&*state.model(Some(&id))?)))
}

fn describe(model: &crate::ServedModel) -> Value {
    json!({
        "id": model.id, "object": "model", "created": model.created, "owned_by": "mlx-serving",
        "max_model_len": model.engine.info().max_context,
    })
}

/// `POST /v1/tokenize`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeRequest {
    model: Option<String>,
    prompt: String,
    add_special_tokens: Option<bool>,
}

/// Text to token ids.
pub(crate) async fn tokenize(
    State(state): State<Arc<AppState>>,
    Body(request): Body<TokenizeRequest>,
) -> Result<Json<Value>, ApiError> {
    let model = state.model(request.model.as_deref())?;
    let max = model.engine.info().max_context;
    let special = request.add_special_tokens.unwrap_or(true);
    let tokens = answer::off_thread(&model, move |m| {
        m.tokenizer.encode(&request.prompt, special).map_err(|e| ApiError::invalid("prompt", e.to_string()))
    });
    let tokens = tokens.await?;
    Ok(Json(json!({ "tokens": tokens, "count": tokens.len(), "max_model_len": max })))
}

/// `POST /v1/detokenize`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokenizeRequest {
    model: Option<String>,
    tokens: Vec<u32>,
}

/// Token ids to text.
pub(crate) async fn detokenize(
    State(state): State<Arc<AppState>>,
    Body(request): Body<DetokenizeRequest>,
) -> Result<Json<Value>, ApiError> {
    let model = state.model(request.model.as_deref())?;
    if let Some(id) = request.tokens.iter().find(|&&id| model.tokenizer.id_to_token(id).is_none()) {
        return Err(ApiError::invalid("tokens", format!("the tokenizer has no token {id}")));
    }
    let text = answer::off_thread(&model, move |m| {
        m.tokenizer.decode(&request.tokens, false).map_err(|e| ApiError::invalid("tokens", e.to_string()))
    });
    Ok(Json(json!({ "prompt": text.await? })))
}

/// `GET /health`: the process answers and its engines' heartbeats move.
pub(crate) async fn health(State(state): State<Arc<AppState>>) -> Response {
    let engines: Vec<Value> = state
        .models()
        .iter()
        .map(|m| {
            let health = m.engine.health();
            json!({ "model": m.id, "alive": health.alive, "heartbeat": health.heartbeat,
                    "step_ms": health.step.map(|s| s.as_millis() as u64), "reason": health.reason })
        })
        .collect();
    let (status, word, reason) = match state.condition() {
        Condition::Dead(reason) => (StatusCode::SERVICE_UNAVAILABLE, "dead", Some(reason)),
        Condition::Wedged(reason) => (StatusCode::SERVICE_UNAVAILABLE, "wedged", Some(reason)),
        // The process does what it can: starting it anew would gain nothing.
        Condition::Reloading(reason) => (StatusCode::OK, "reloading", Some(reason)),
        _ => (StatusCode::OK, "ok", None),
    };
    (status, Json(json!({ "status": word, "reason": reason, "engines": engines }))).into_response()
}

/// `GET /ready`: 503 while loading, weights on their way included, draining or wedged.
pub(crate) async fn ready(State(state): State<Arc<AppState>>) -> Response {
    let (status, word, reason) = match state.condition() {
        Condition::Ready => (StatusCode::OK, "ready", None),
        Condition::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading", None),
        Condition::Arriving(reason) => (StatusCode::SERVICE_UNAVAILABLE, "loading", Some(reason)),
        Condition::Reloading(reason) => (StatusCode::SERVICE_UNAVAILABLE, "reloading", Some(reason)),
        Condition::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", None),
        Condition::Dead(reason) => (StatusCode::SERVICE_UNAVAILABLE, "dead", Some(reason)),
        Condition::Wedged(reason) => (StatusCode::SERVICE_UNAVAILABLE, "wedged", Some(reason)),
    };
    (status, Json(json!({ "status": word, "reason": reason }))).into_response()
}

/// `GET /metrics`
pub(crate) async fn metrics(State(state): State<Arc<AppState>>) -> Result<Response, ApiError> {
    let text = metrics::exposition(&state)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// `?model=`
#[derive(Debug, Deserialize)]
pub(crate) struct WhichModel {
    model: Option<String>,
}

/// `GET /v1/metal/stats`: of the model named, or the first.
pub(crate) async fn metal_stats(
    State(state): State<Arc<AppState>>,
    which: Result<Query<WhichModel>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(which) = which.map_err(|e| ApiError::invalid("model", e.body_text()))?;
    let model = match (which.model, state.models().first()) {
        (Some(name), _) => state.model(Some(&name))?,
        (None, Some(first)) => first.clone(),
        (None, None) => return Err(ApiError::invalid("model", "no model is loaded yet")),
    };
    Ok(Json(model.engine.stats()).into_response())
}
