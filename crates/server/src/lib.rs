//! The HTTP server: OpenAI's JSON in, JSON or server-sent events out. It knows nothing of devices.
//!
//! The way of a request: `connection` accepts it, `middleware` refuses foreign pages and observes, `admission` takes its body, then the
//! routes, whose answers go out through `connection`, within its limits.
//!
//! Every parameter is honored, asks for nothing, or is refused with 400; every error is `{"error": {message, type, param, code}}`. A client
//! that hangs up drops its body stream, which drops the engine's [`mlx_serving_engine::Stream`], which cancels the request.
#![forbid(unsafe_code)]

mod admission;
mod answer;
mod body;
mod chat;
mod completions;
mod connection;
mod conversation;
mod encode;
mod envelope;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod logprobs;
mod metrics;
mod middleware;
mod neutral;
mod object;
mod params;
mod prompts;
mod revive;
mod routes;
mod state;

pub use connection::{Limits, serve};
pub use revive::revive;
pub use state::{AppState, Settings};

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use error::ApiError;
use middleware::{observe::observe, origin::guard};
use std::sync::Arc;

/// All routes, behind the layers that every request passes: observation, the guard, and the answers to browsers.
pub fn router(state: Arc<AppState>) -> Router {
    let routes = Router::new()
        .route("/v1/chat/completions", post(chat::chat_completions))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/models", get(routes::models))
        .route("/v1/models/{*id}", get(routes::model))
        .route("/v1/tokenize", post(routes::tokenize))
        .route("/v1/detokenize", post(routes::detokenize))
        .route("/v1/metal/stats", get(routes::metal_stats))
        .route("/health", get(routes::health))
        .route("/ready", get(routes::ready))
        .route("/metrics", get(routes::metrics))
        .fallback(|method: Method, uri: Uri| async move { ApiError::unknown_route(method.as_str(), uri.path()) })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            ApiError::wrong_method(method.as_str(), uri.path())
        });
    let routes = match state.origins.cors() {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes
        .layer(from_fn_with_state(state.clone(), guard))
        .layer(from_fn_with_state(state.clone(), observe))
        .with_state(state)
}
