//! The small routes: models, tokens, health, statistics.

use crate::answer;
use crate::body::Body;
use crate::encode::encode;
use crate::error::ApiError;
use crate::metrics;
use crate::object::object;
use crate::state::{AppState, Condition};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mlx_serving_metrics::Format;
use mlx_serving_runtime::{Generate, Input};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /v1/models`
pub(crate) async fn models(State(state): State<Arc<AppState>>) -> Json<Value> {
    let data: Vec<Value> = state.models().iter().map(|m| describe(&**m)).collect();
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

fn describe(model: &dyn Generate) -> Value {
    json!({
        "id": model.card().id, "object": "model", "created": model.card().created, "owned_by": "mlx-serving",
        "max_model_len": model.card().info.max_context,
    })
}

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
    Body(request, permit): Body<TokenizeRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.model.as_deref())?;
    let max = model.card().info.max_context;
    let special = request.add_special_tokens.unwrap_or(true);
    let tokens = answer::off_thread(permit, &model, move |m, work| {
        encode(m, Input::Text { text: request.prompt, special }, work)
    })
    .await?;
    let charge = state.unread.charge();
    charge.settle(8 * tokens.len());
    let build = move || json!({ "tokens": tokens, "count": tokens.len(), "max_model_len": max });
    answer::whole(&state, charge, build).await
}

object! {
    /// `POST /v1/detokenize`
    pub(crate) struct DetokenizeRequest {
        model: String,
        tokens: Vec<u32> = required,
    }
}

/// Token ids to text.
pub(crate) async fn detokenize(
    State(state): State<Arc<AppState>>,
    Body(request, permit): Body<DetokenizeRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.model.as_deref())?;
    let (count, max) = (request.tokens.len(), model.card().info.max_context);
    if count > max {
        return Err(ApiError::invalid("tokens", format!("{count} tokens; this model's context holds {max}")));
    }
    let text = answer::off_thread(permit, &model, move |m, _| {
        if let Some(id) = request.tokens.iter().find(|&&id| m.tokenizer().id_to_token(id).is_none()) {
            return Err(ApiError::invalid("tokens", format!("the tokenizer has no token {id}")));
        }
        m.tokenizer().decode(&request.tokens, false).map_err(|e| ApiError::invalid("tokens", e.to_string()))
    });
    let text = text.await?;
    let charge = state.unread.charge();
    charge.settle(text.len());
    answer::whole(&state, charge, move || json!({ "prompt": text })).await
}

/// `GET /health`: the process answers and its engines' heartbeats move.
pub(crate) async fn health(State(state): State<Arc<AppState>>) -> Response {
    let engines: Vec<Value> = state
        .models()
        .iter()
        .map(|m| {
            let health = m.health();
            json!({ "model": m.card().id, "alive": health.alive, "heartbeat": health.heartbeat,
                    "step_ms": health.step.map(|s| s.as_millis() as u64), "reason": health.reason })
        })
        .collect();
    let (status, word, reason) = match state.condition() {
        Condition::Dead(reason) => (StatusCode::SERVICE_UNAVAILABLE, "dead", Some(reason)),
        Condition::Wedged(reason) => (StatusCode::SERVICE_UNAVAILABLE, "wedged", Some(reason)),
        // The process does all that it can: starting it again would gain nothing.
        Condition::Reloading(reason) => (StatusCode::OK, "reloading", Some(reason)),
        _ => (StatusCode::OK, "ok", None),
    };
    (status, Json(json!({ "status": word, "reason": reason, "engines": engines }))).into_response()
}

/// `GET /ready`: 503 while loading, weights that are being transferred included, draining or wedged.
pub(crate) async fn ready(State(state): State<Arc<AppState>>) -> Response {
    let (status, word, reason) = match state.condition() {
        Condition::Ready => (StatusCode::OK, "ready", None),
        Condition::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading", None),
        Condition::Transferring(reason) => (StatusCode::SERVICE_UNAVAILABLE, "loading", Some(reason)),
        Condition::Reloading(reason) => (StatusCode::SERVICE_UNAVAILABLE, "reloading", Some(reason)),
        Condition::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", None),
        Condition::Dead(reason) => (StatusCode::SERVICE_UNAVAILABLE, "dead", Some(reason)),
        Condition::Wedged(reason) => (StatusCode::SERVICE_UNAVAILABLE, "wedged", Some(reason)),
    };
    (status, Json(json!({ "status": word, "reason": reason }))).into_response()
}

/// `GET /metrics`, in the format that `Accept` prefers.
pub(crate) async fn metrics(State(state): State<Arc<AppState>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    let text = metrics::exposition(&state, format)?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
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
    let model = match which.model {
        Some(name) => state.model(Some(&name))?,
        None => state.first()?,
    };
    Ok(Json(model.stats()).into_response())
}
