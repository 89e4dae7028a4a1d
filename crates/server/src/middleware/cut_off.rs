//! The end of the time that a server takes to stop.

use crate::error::ApiError;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

/// Answers a request with 503 if its answer's head is not there when the time is over. Streams end by themselves then.
pub(crate) async fn cut_off(State(mut over): State<watch::Receiver<bool>>, request: Request, next: Next) -> Response {
    tokio::select! {
        biased;
        response = next.run(request) => response,
        Ok(_) = over.wait_for(|over| *over) => ApiError::cut_off().into_response(),
    }
}
