//! The models that are served.

use crate::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use mlx_serving_runtime::Generate;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /v1/models`
pub(crate) async fn models(State(state): State<Arc<AppState>>) -> Json<Value> {
    let data: Vec<Value> = state.registry().named().iter().map(|(name, model)| describe(name, &**model)).collect();
    Json(json!({ "object": "list", "data": data }))
}

/// `GET /v1/models/{id}`
pub(crate) async fn model(
    State(state): State<Arc<AppState>>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    // What is not UTF-8 names no model either; the error repeats it as it came.
    let raw = |_| uri.path().rsplit_once("/models/").map_or("", |(_, id)| id).to_owned();
    let id = id.map_or_else(raw, |Path(id)| id);
    Ok(Json(describe(&id, &*state.model(Some(&id))?)))
}

/// A model under one of its names.
fn describe(name: &str, model: &dyn Generate) -> Value {
    json!({
        "id": name, "object": "model", "created": model.card().created, "owned_by": "mlx-serving",
        "max_model_len": model.card().info.max_context,
    })
}
