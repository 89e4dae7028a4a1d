//! The version of this program.

use axum::Json;
use serde_json::{Value, json};

/// `GET /version`
pub(crate) async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}
