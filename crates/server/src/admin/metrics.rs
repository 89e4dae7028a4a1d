//! Metrics: the engines', the answers of this server, the process.

use crate::error::ApiError;
use crate::state::AppState;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use mlx_serving_metrics::{Families, Format, process};
use std::sync::Arc;

/// `GET /metrics`, in the format that `Accept` prefers.
pub(crate) async fn metrics(State(state): State<Arc<AppState>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    let text = exposition(&state, format)?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

/// The text of everything.
fn exposition(state: &AppState, format: Format) -> Result<String, ApiError> {
    let mut families = Families::default();
    for model in state.models() {
        model.tell_metrics(&mut families.labeled(&[("model_name", &model.card().id)]));
    }
    state.observed.answers.tell(&mut families);
    process(&mut families.labeled(&[]));
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    families.labeled(&version).gauge("mlx_serving_build_info", "Version of this program.", 1u64);
    families.write(format).map_err(|e| ApiError::internal(format!("the metrics could not be written: {e}")))
}
