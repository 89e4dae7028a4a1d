//! The HTTP server: JSON in, JSON or server-sent events out. It knows nothing of devices, and of models what
//! [`mlx_serving_runtime::Generate`] says.
//!
//! The way of a request: `connection` accepts it, `routes` knows which route it means, `middleware` refuses foreign pages and observes, `request` takes and parses its body
//! within the bounds of `admission`, a dialect makes an `Ask` of it, `generation` runs that, and the dialect writes what comes, which goes
//! out through `connection`, within its limits. `state` is what all rooms share. No room imports one that imports it.
//!
//! Each dialect is a folder like `openai`, with one line in [`router`].
//!
//! Every parameter is honored, asks for nothing, or is refused with 400. A client that hangs up drops its body stream, which drops the
//! model's events, which cancels the request.
#![forbid(unsafe_code)]

mod account;
mod admin;
mod admission;
mod anthropic;
mod connection;
mod error;
#[doc(hidden)]
pub mod fields;
#[doc(hidden)]
pub mod fuzz;
mod generation;
mod ids;
mod limits;
mod middleware;
mod openai;
mod openapi;
mod request;
mod responses;
mod routes;
mod state;
mod stored;

pub use limits::Limits;
pub use state::{AppState, Settings};

use axum::Router;
use axum::extract::OriginalUri;
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use error::ApiError;
use middleware::{cut_off::cut_off, observe::observe, origin::guard};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tower::util::MapRequest;

/// Serves until `shutdown` resolves; then refuses new requests and gives those accepted the time that it says until the last byte of
/// their answers is out. The rest is cut off: streams get an error event, whole answers 503.
///
/// # Errors
/// The listener cannot be used, or the thread that accepts cannot be started.
pub async fn serve(
    listener: TcpListener,
    state: Arc<AppState>,
    shutdown: impl Future<Output = Duration>,
) -> io::Result<()> {
    connection::serve(listener, router(state.clone()), state, shutdown).await
}

/// All routes, behind the layers that every request passes: observation, errors in the client's shape, the end of
/// the server, the guard, and the answers to browsers.
pub fn router(state: Arc<AppState>) -> Router {
    let (routes, table) =
        openai::routes().merge(responses::routes()).merge(anthropic::routes()).merge(admin::routes()).into_parts();
    let (unknown, known) = (table.clone(), table.clone());
    let routes = routes
        .fallback(|method: Method, OriginalUri(uri): OriginalUri| async move {
            ApiError::unknown_route(method.as_str(), uri.path(), &unknown.list())
        })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            ApiError::wrong_method(method.as_str(), uri.path(), &known.methods(uri.path()))
        });
    let routes = match state.origins.cors() {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    let routes = routes
        .layer(from_fn_with_state(state.origins.clone(), guard))
        .layer(from_fn_with_state(state.cut_off.subscribe(), cut_off))
        .layer(from_fn(anthropic::own_errors))
        .layer(from_fn_with_state(state.observed.clone(), observe))
        .with_state(state);
    // Layers of a router come after its choice of a route, this before it.
    Router::new().fallback_service(MapRequest::new(routes, move |request| table.direct(request)))
}
