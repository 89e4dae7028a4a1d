//! The HTTP server: OpenAI's JSON in, JSON or server-sent events out. It knows nothing of devices.
//!
//! Every parameter is honored, asks for nothing, or is refused with 400; every error is `{"error": {message, type, param, code}}`. A client that
//! hangs up drops its body stream, which drops the engine's [`mlx_serving_engine::Stream`], which cancels the request.
#![forbid(unsafe_code)]

mod answer;
mod body;
mod chat;
mod completions;
mod conversation;
mod encode;
mod envelope;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod logprobs;
mod metrics;
mod neutral;
mod object;
mod params;
mod revive;
mod routes;
mod state;

pub use revive::revive;
pub use state::{AppState, ServedModel, Settings};

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use error::ApiError;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tower_http::trace::TraceLayer;

/// All routes.
pub fn router(state: Arc<AppState>) -> Router {
    Router::new()
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
        .fallback(|uri: Uri| async move { ApiError::unknown_route(uri.path()) })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            ApiError::wrong_method(method.as_str(), uri.path())
        })
        .layer(TraceLayer::new_for_http())
        .with_state(state)
}

/// Serves until `shutdown` resolves; then refuses new requests and gives those accepted `grace` to end.
pub async fn serve(
    listener: TcpListener,
    state: Arc<AppState>,
    shutdown: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> std::io::Result<()> {
    let draining = state.clone();
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let stop = async move {
        shutdown.await;
        draining.drain();
        let deadline = tokio::time::Instant::now() + grace;
        while draining.live() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The receiver is gone only if the server has ended already.
        let _ = ended.send(());
    };
    let listener = listener.tap_io(|socket| {
        // Tokens are small packets; without this they would wait for each other. A socket that refuses is slower, not broken.
        let _ = socket.set_nodelay(true);
    });
    let server = axum::serve(listener, router(state)).with_graceful_shutdown(stop);
    tokio::select! {
        result = server => result,
        // Connections that are kept alive must not hold up the end.
        _ = async { let _ = end.await; tokio::time::sleep(Duration::from_millis(500)).await } => Ok(()),
    }
}
