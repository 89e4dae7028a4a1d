//! The log of requests: one line for each route and status that fails, and second.

use crate::state::AppState;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Characters of a path in the log.
const PATH: usize = 200;
const SECOND: Duration = Duration::from_secs(1);

/// A kind of failure: method, route, status.
type Kind = (Method, String, StatusCode);

/// When each kind of failure was last told of, and how often it has come since.
#[derive(Debug, Default)]
pub(crate) struct RequestLog(Mutex<HashMap<Kind, (Instant, u64)>>);

impl RequestLog {
    /// How many of the kind came untold before this one; `None` if this one is not to be told either.
    fn tell(&self, method: &Method, route: &str, status: StatusCode, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match kinds.get_mut(&(method.clone(), route.to_owned(), status)) {
            Some((last, untold)) if now.duration_since(*last) < SECOND => {
                *untold += 1;
                None
            }
            Some((last, untold)) => {
                *last = now;
                Some(std::mem::take(untold))
            }
            None => {
                kinds.insert((method.clone(), route.to_owned(), status), (now, 0));
                Some(0)
            }
        }
    }
}

/// Logs a request that fails on this side.
pub(crate) async fn log(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(PATH).collect();
    // Paths are the client's; routes are few.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let status = response.status();
    if !status.is_server_error() {
        tracing::debug!(%method, path, status = status.as_u16(), "answered");
        return response;
    }
    if let Some(untold) = state.log.tell(&method, &route, status, Instant::now()) {
        let untold = (untold > 0).then_some(untold);
        tracing::warn!(%method, path, status = status.as_u16(), untold, "a request failed");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_route_a_status_and_a_second() {
        let (log, start) = (RequestLog::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let tell = |path, ms| log.tell(&Method::GET, path, StatusCode::SERVICE_UNAVAILABLE, at(ms));
        assert_eq!(tell("/ready", 0), Some(0));
        assert_eq!((tell("/ready", 1), tell("/ready", 999)), (None, None));
        assert_eq!(tell("/health", 2), Some(0));
        assert_eq!(tell("/ready", 1000), Some(2));
        assert_eq!(log.tell(&Method::GET, "/ready", StatusCode::INTERNAL_SERVER_ERROR, at(1001)), Some(0));
    }
}
