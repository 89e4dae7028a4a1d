//! Observation of requests: every answer is counted, and of those that fail on this side one a second is logged for each route and status.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use mlx_serving_metrics::Families;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Characters of a path in the log.
const PATH: usize = 200;
const SECOND: Duration = Duration::from_secs(1);

/// A kind of failure: method, route, status.
type Kind = (Method, String, StatusCode);

/// Counts and log of the answers so far.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub answers: HttpAnswers,
    log: RequestLog,
}

/// Answers of this server, by route, method and status. All three come from short lists, whatever clients send.
#[derive(Debug, Default)]
pub(crate) struct HttpAnswers(Mutex<BTreeMap<(String, &'static str, u16), u64>>);

impl HttpAnswers {
    /// Notes an answer. `route` is the template that the path matched, or empty where it matched none.
    pub(crate) fn note(&self, route: &str, method: &Method, status: StatusCode) {
        const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
        let method = METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("other");
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((route.to_owned(), method, status.as_u16())).or_default() += 1;
    }

    pub(crate) fn tell(&self, families: &mut Families) {
        for ((route, method, status), count) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels = [("handler", route.as_str()), ("method", method), ("status", &*status.to_string())];
            families.labeled(&labels).counter("http_requests", "HTTP answers by route, method and status.", *count);
        }
    }
}

/// Time of each kind of failure's last line in the log, and the lines suppressed since.
#[derive(Debug, Default)]
struct RequestLog(Mutex<HashMap<Kind, (Instant, u64)>>);

impl RequestLog {
    /// Lines of the kind that were suppressed before this one; `None` if this one is suppressed too.
    fn suppressed(&self, method: &Method, route: &str, status: StatusCode, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match kinds.get_mut(&(method.clone(), route.to_owned(), status)) {
            Some((last, suppressed)) if now.duration_since(*last) < SECOND => {
                *suppressed += 1;
                None
            }
            Some((last, suppressed)) => {
                *last = now;
                Some(std::mem::take(suppressed))
            }
            None => {
                kinds.insert((method.clone(), route.to_owned(), status), (now, 0));
                Some(0)
            }
        }
    }
}

/// Counts and logs an answer once its head is there. Paths are the client's, routes are few: only these are counted by.
pub(crate) async fn observe(State(observed): State<Arc<Observed>>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(PATH).collect();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let (route, status) = (route.as_ref().map_or("", MatchedPath::as_str), response.status());
    observed.answers.note(route, &method, status);
    // A probe that is told "not now" has not failed.
    let probed = matches!(route, "/ready" | "/health") && status == StatusCode::SERVICE_UNAVAILABLE;
    if probed || !status.is_server_error() {
        tracing::debug!(%method, path, status = status.as_u16(), "answered");
    } else if let Some(suppressed) = observed.log.suppressed(&method, route, status, Instant::now()) {
        let suppressed = (suppressed > 0).then_some(suppressed);
        tracing::warn!(%method, path, status = status.as_u16(), suppressed, "a request failed");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_serving_metrics::Format;

    #[test]
    fn one_line_a_route_a_status_and_a_second() {
        let (log, start) = (RequestLog::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let suppressed = |path, ms| log.suppressed(&Method::GET, path, StatusCode::SERVICE_UNAVAILABLE, at(ms));
        assert_eq!(suppressed("/ready", 0), Some(0));
        assert_eq!((suppressed("/ready", 1), suppressed("/ready", 999)), (None, None));
        assert_eq!(suppressed("/health", 2), Some(0));
        assert_eq!(suppressed("/ready", 1000), Some(2));
        assert_eq!(log.suppressed(&Method::GET, "/ready", StatusCode::INTERNAL_SERVER_ERROR, at(1001)), Some(0));
    }

    #[test]
    fn answers_are_counted_under_names_that_clients_do_not_choose() {
        let answers = HttpAnswers::default();
        answers.note("/v1/models/{*id}", &Method::GET, StatusCode::OK);
        answers.note("/v1/models/{*id}", &Method::GET, StatusCode::OK);
        answers.note("", &Method::from_bytes(b"BREW").unwrap(), StatusCode::NOT_FOUND);
        let mut families = Families::default();
        answers.tell(&mut families);
        let text = families.write(Format::Prometheus).unwrap();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "http_requests_total{handler=\"\",method=\"other\",status=\"404\"} 1",
                "http_requests_total{handler=\"/v1/models/{*id}\",method=\"GET\",status=\"200\"} 2",
            ]
        );
    }
}
