//! Probes: does the process live, and does it take requests.

use crate::error::retry_later;
use crate::state::{AppState, Condition};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

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
    let mut response = (status, Json(json!({ "status": word, "reason": reason }))).into_response();
    retry_later(&mut response);
    response
}
