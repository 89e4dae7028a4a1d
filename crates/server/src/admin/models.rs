//! The models that are served, in the shape of the client's dialect.

use crate::anthropic;
use crate::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use mlx_serving_runtime::Generate;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /v1/models`
pub(crate) async fn models(State(state): State<Arc<AppState>>, headers: HeaderMap, uri: Uri) -> Json<Value> {
    let describe = describer(&headers);
    let data: Vec<Value> = state.registry().named().iter().map(|(name, model)| describe(name, &**model)).collect();
    if headers.contains_key(anthropic::VERSION) {
        let id = |card: Option<&Value>| card.map(|card| card["id"].clone());
        let (first, last) = (id(data.first()), id(data.last()));
        return Json(json!({ "data": data, "has_more": false, "first_id": first, "last_id": last }));
    }
    let mut list = json!({ "object": "list", "data": data });
    // One agent asks for a catalog of its own here. An empty one leaves it its own instructions and settings.
    if uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("client_version="))) {
        list["models"] = json!([]);
    }
    Json(list)
}

/// `GET /v1/models/{id}`
pub(crate) async fn model(
    State(state): State<Arc<AppState>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    // What is not UTF-8 names no model either; the error repeats it as it came.
    let raw = |_| uri.path().rsplit_once("/models/").map_or("", |(_, id)| id).to_owned();
    let id = id.map_or_else(raw, |Path(id)| id);
    Ok(Json(describer(&headers)(&id, &*state.model(Some(&id))?)))
}

/// Describes a model under one of its names, in the client's dialect.
fn describer(headers: &HeaderMap) -> fn(&str, &dyn Generate) -> Value {
    if headers.contains_key(anthropic::VERSION) { anthropic::model } else { describe }
}

/// The same in OpenAI's dialect.
fn describe(name: &str, model: &dyn Generate) -> Value {
    json!({
        "id": name, "object": "model", "created": model.card().created, "owned_by": "mlx-serving",
        "max_model_len": model.card().info.max_context,
    })
}
