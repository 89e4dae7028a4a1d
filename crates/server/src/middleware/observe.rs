//! Observation of requests: every answer is counted, has its request's id, and is a line of the log at level `debug`; of those that fail on
//! this side one a second is a warning for each route and status.

use crate::account::{Account, Client, RequestId};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, OriginalUri, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use mlx_serving_metrics::Families;
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
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

/// Counts an answer once its head is there, marks it with the request's id, and logs it at its end; of those that fail on this side a
/// few are logged as warnings at once. Paths are the client's, routes are few: only these are counted by.
pub(crate) async fn observe(State(observed): State<Arc<Observed>>, mut request: Request, next: Next) -> Response {
    let id = request.extensions_mut().remove().unwrap_or_else(|| RequestId::of(request.headers()));
    let mut line = Line::begin(id, &request);
    request.extensions_mut().insert(line.account.clone());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let (route, status) = (route.as_ref().map_or("", MatchedPath::as_str), response.status());
    let method = &line.method;
    observed.answers.note(route, method, status);
    // A probe that is told "not now" has not failed.
    let probed = matches!(route, "/ready" | "/health") && status == StatusCode::SERVICE_UNAVAILABLE;
    if !probed
        && status.is_server_error()
        && let Some(suppressed) = observed.log.suppressed(method, route, status, Instant::now())
    {
        let suppressed = (suppressed > 0).then_some(suppressed);
        let (request_id, path) = (line.id.as_str(), &line.path);
        tracing::warn!(request_id, %method, path, status = status.as_u16(), suppressed, "a request failed");
    }
    line.id.mark(response.headers_mut());
    line.status = Some(status);
    response.map(|body| Body::new(Logged { body, line }))
}

/// A request's line in the log, written when its answer, or what there will ever be of it, has been handed over.
#[derive(Debug)]
struct Line {
    id: RequestId,
    method: Method,
    path: String,
    client: Option<Client>,
    account: Arc<Account>,
    begun: Instant,
    status: Option<StatusCode>,
    /// The answer was taken to its end.
    whole: bool,
}

impl Line {
    fn begin(id: RequestId, request: &Request) -> Self {
        let uri = request.extensions().get::<OriginalUri>().map_or(request.uri(), |original| &original.0);
        let line = Self {
            id,
            method: request.method().clone(),
            path: uri.path().chars().take(PATH).collect(),
            client: request.extensions().get().copied(),
            account: Arc::default(),
            begun: Instant::now(),
            status: None,
            whole: false,
        };
        let client = line.client.map(|client| tracing::field::display(client.0));
        tracing::trace!(request_id = line.id.as_str(), method = %line.method, path = line.path, client, "asked");
        line
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let entries = self.account.entries().clone();
        let ms = |time: Instant| time.duration_since(self.begun).as_micros() as f64 / 1e3;
        tracing::debug!(
            request_id = self.id.as_str(),
            method = %self.method,
            path = self.path,
            status = self.status.map(|status| status.as_u16()),
            model = entries.model,
            prompt_tokens = entries.prompt_tokens,
            completion_tokens = entries.completion_tokens,
            ttft_ms = entries.first.map(ms),
            ms = ms(Instant::now()),
            client = self.client.map(|client| tracing::field::display(client.0)),
            "{}",
            if self.whole { "answered" } else { "not answered to the end" }
        );
    }
}

/// An answer's body, and the line that is written at its end.
struct Logged {
    body: Body,
    line: Line,
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.line.whole |= frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        // Of the answer to a HEAD, nobody asks for the body.
        self.line.whole |= self.line.method == Method::HEAD || self.body.is_end_stream();
    }
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
