//! Statistics of the three optimizations.

use crate::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;

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
    let Query(which) = which.map_err(|_| ApiError::invalid("model", "the query names one model, as ?model=NAME"))?;
    let model = match which.model {
        Some(name) => state.model(Some(&name))?,
        None => state.first()?,
    };
    Ok(Json(model.stats()).into_response())
}
