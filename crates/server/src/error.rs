use crate::fields;
use crate::request::neutral::UNSUPPORTED;
use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use mlx_serving_engine::EngineError;
use serde::Serialize;
use std::borrow::Cow;

/// An error in OpenAI's shape, `{"error": {message, type, param, code}}`, and the only place that chooses status codes. A dialect with
/// another shape makes its own of it.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

#[derive(Debug, Clone, Serialize)]
struct ErrorBody {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
}

/// Characters of the client's own input that an error repeats.
const MAX_ECHO: usize = 200;

/// Input as an error repeats it: the middle of what is long is left out.
pub(crate) fn shorten(input: &str) -> Cow<'_, str> {
    const TAIL: usize = MAX_ECHO / 4;
    let chars = input.chars().count();
    if chars <= MAX_ECHO {
        return Cow::Borrowed(input);
    }
    let at = |n: usize| input.char_indices().nth(n).map_or(input.len(), |(at, _)| at);
    Cow::Owned(format!("{}…{}", &input[..at(MAX_ECHO - TAIL)], &input[at(chars - TAIL)..]))
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { message: message.into(), kind, param: None, code: None } }
    }

    /// Its HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// One sentence about what happened.
    pub(crate) fn message(&self) -> &str {
        &self.body.message
    }

    /// The code by which clients tell it from others.
    pub(crate) fn code(&self) -> Option<&'static str> {
        self.body.code
    }

    pub(crate) fn coded(mut self, code: &'static str) -> Self {
        self.body.code = Some(code);
        self
    }

    /// 400 with the parameter at fault.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        error.body.param = Some(param.into()).filter(|p| !p.is_empty());
        error.coded("invalid_value")
    }

    /// The same error, if it is about the parameter `from`, about the one that the client calls `to`.
    pub(crate) fn renamed(mut self, from: &str, to: &str) -> Self {
        if self.body.param.as_deref() == Some(from) {
            self.body.param = Some(to.to_owned());
            if let Some(rest) = self.body.message.strip_prefix(from) {
                self.body.message = format!("{to}{rest}");
            }
        }
        self
    }

    /// 400 for a model that generates nothing; `param` is the client's name for it.
    pub(crate) fn embeds_only(model: &str, param: &str) -> Self {
        Self::invalid(param, format!("{model} is an embedding model, which generates nothing; use /v1/embeddings"))
    }

    /// The same error, with the advice of the route's table of fields where it is about a field that is not supported.
    pub(crate) fn advised(mut self, route: &str) -> Self {
        let advice = self.body.param.as_deref().and_then(|param| fields::advice(route, param));
        if let (Some(advice), Some(name)) = (advice, self.body.message.strip_suffix(UNSUPPORTED)) {
            self.body.message = format!("{name}is not supported by this server; {advice}");
        }
        self
    }

    /// The same fault in an entry of a list: `entry` is its name.
    pub(crate) fn of_entry(mut self, entry: &str) -> Self {
        if let Some(param) = &mut self.body.param {
            entry.clone_into(param);
            self.body.message = format!("{entry}: {}", self.body.message);
        }
        self
    }

    /// 400 for more tokens than the context holds, with the code for which clients look.
    pub(crate) fn context_length(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(param, message).coded("context_length_exceeded")
    }

    /// 415 for a body in an encoding that is not taken.
    pub(crate) fn unknown_encoding(encoding: &str) -> Self {
        let message = format!(
            "the body's Content-Encoding is {:?}; this server takes gzip, and bodies that are not encoded",
            shorten(encoding)
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message).coded("unsupported_encoding")
    }

    /// 404 for a model that is not served.
    pub(crate) fn unknown_model(model: &str, served: &[&str]) -> Self {
        let message = format!(
            "model {:?} is not served here; GET /v1/models lists what is: {}",
            shorten(model),
            served.join(", ")
        );
        let mut error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        error.body.param = Some("model".into());
        error.coded("model_not_found")
    }

    /// 404 for a response that is not kept, maybe because none are.
    pub(crate) fn unknown_response(id: &str, kept: bool) -> Self {
        let reason = match kept {
            true => {
                "it was forgotten, or never was (server.limits.stored_responses and stored_responses_mb bound what is kept)"
            }
            false => "this server keeps none (server.limits.stored_responses is 0)",
        };
        let message = format!("response {:?} is not here: {reason}", shorten(id));
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message).coded("response_not_found")
    }

    /// The same error, about the response with which a conversation shall go on: OpenAI's status and code.
    pub(crate) fn about_previous(mut self) -> Self {
        self.status = StatusCode::BAD_REQUEST;
        self.body.param = Some("previous_response_id".into());
        self.coded("previous_response_not_found")
    }

    /// 404 for a path; `routes` lists those that there are.
    pub(crate) fn unknown_route(method: &str, path: &str, routes: &str) -> Self {
        let message =
            format!("{} {} is not a route of this server, which has {routes}", shorten(method), shorten(path));
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message).coded("not_found")
    }

    /// 405; `methods` lists those that the path answers.
    pub(crate) fn wrong_method(method: &str, path: &str, methods: &str) -> Self {
        let message = format!("{} does not answer {}; it answers {methods}", shorten(path), shorten(method));
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message).coded("method_not_allowed")
    }

    /// 413.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            format!("the body is longer than {limit} bytes"),
        )
        .coded("body_too_large")
    }

    /// 408.
    pub(crate) fn slow_body() -> Self {
        let message = "the body did not come in time (server.limits.body_s and pause_s)";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message).coded("body_too_slow")
    }

    /// 429: the bodies that are being read fill the memory that is meant for them.
    pub(crate) fn crowded_bodies() -> Self {
        let message = "too many large bodies are being read; try again soon (server.limits.bodies_mb)";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message).coded("overloaded")
    }

    /// 503: every connection is busy.
    pub(crate) fn crowded() -> Self {
        Self::unavailable("too many connections are open; try again soon (server.limits.connections)")
    }

    /// 503: clients do not take their answers.
    pub(crate) fn unread() -> Self {
        Self::unavailable("too many bytes of answers wait for their clients; try again soon (server.limits.unread_mb)")
    }

    /// 503: the server is asked to stop.
    pub(crate) fn draining() -> Self {
        Self::unavailable("the server is stopping; it takes no new requests")
    }

    /// 503: the server stops before the answer is whole.
    pub(crate) fn cut_off() -> Self {
        Self::unavailable("the server is stopping, and its time to end (server.shutdown_grace_s) is over")
    }

    /// 503 for a model that will be served.
    pub(crate) fn loading(model: &str) -> Self {
        Self::unavailable(format!("model {model} is being loaded; try again soon"))
    }

    /// 503 for a model that is lost and loaded again; the reason is a clause.
    pub(crate) fn reloading(model: &str, reason: &str) -> Self {
        Self::unavailable(format!("model {model} is being loaded again ({reason}); try again soon"))
    }

    /// 503 where no model is configured yet.
    pub(crate) fn nothing_served() -> Self {
        Self::unavailable("no model is served yet; try again soon")
    }

    /// 503 for what may be there later.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message).coded("unavailable")
    }

    /// 400: an answer that has grown too long to be held as a whole.
    /// `param` is the client's name for the limit on its tokens.
    pub(crate) fn too_long(param: &'static str, limit: usize) -> Self {
        let message = format!(
            "the answer has grown beyond {} MiB (server.limits.answer_mb); ask for fewer tokens, choices or logprobs, or stream it",
            limit >> 20
        );
        Self::invalid(param, message)
    }

    /// 403 for a name that does not lead here.
    pub(crate) fn foreign_host(host: &str) -> Self {
        let message =
            format!("host {:?} is not a name of this server; add it to server.allowed_hosts if it is", shorten(host));
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", message).coded("foreign_host")
    }

    /// 403 for a web page of another origin.
    pub(crate) fn foreign_origin(origin: &str) -> Self {
        let message = match origin.starts_with("http") {
            true => format!(
                "pages of {} may not use this server; add it to server.cors_origins if they may",
                shorten(origin)
            ),
            false => "a page that does not tell its origin may not use this server; server.cors_origins: [\"*\"] lets all pages do so".to_owned(),
        };
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", message).coded("foreign_origin")
    }

    /// 500: a defect on this side.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// The JSON body, for streams that have begun.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "error": self.body })
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Invalid { param, .. } => Self::invalid(param, message),
            EngineError::ContextLength { param, .. } => Self::context_length(param, message),
            EngineError::Overloaded { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message).coded("overloaded")
            }
            EngineError::Stopped(_) | EngineError::Unstarted(_) => Self::unavailable(message),
            EngineError::Device(_) => Self::internal(message).coded("device_error"),
            EngineError::Grammar(_) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message).coded("grammar_error")
            }
            EngineError::Masks(_) => Self::internal(message).coded("grammar_error"),
            EngineError::Slow(_) => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message).coded("slow_reader")
            }
        }
    }
}

impl IntoResponse for ApiError {
    /// The answer in OpenAI's shape. It carries the error, from which a dialect with another shape makes its own.
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.to_json())).into_response();
        retry_later(&mut response);
        response.extensions_mut().insert(self);
        response
    }
}

/// Has an answer that says "not now" say when to try again.
pub(crate) fn retry_later(response: &mut Response) {
    if matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_error_has_its_status() {
        for (error, status) in [
            (EngineError::invalid("top_p", "x"), 400),
            (EngineError::ContextLength { param: "prompt", message: "x".into() }, 400),
            (EngineError::Overloaded { live: 3, limit: 3, asked: 1 }, 429),
            (EngineError::Stopped("x".into()), 503),
            (EngineError::Unstarted("x".into()), 503),
            (EngineError::Device("x".into()), 500),
            (EngineError::Grammar("x".into()), 400),
            (EngineError::Masks("x".into()), 500),
            (EngineError::Slow("x".into()), 408),
        ] {
            assert_eq!(ApiError::from(error).into_response().status(), status);
        }
    }

    #[test]
    fn long_input_is_not_repeated_in_full() {
        assert_eq!(shorten("short"), "short");
        let long = format!("{}é{}", "a".repeat(5000), "b".repeat(5000));
        let shown = shorten(&long);
        assert_eq!(shown.chars().count(), MAX_ECHO + 1);
        assert!(shown.starts_with("aaa") && shown.ends_with("bbb"), "{shown}");
        for error in [
            ApiError::unknown_model(&long, &["m"]),
            ApiError::unknown_route("GET", &long, "GET /x"),
            ApiError::unknown_route(&long, "/", "GET /x"),
            ApiError::wrong_method("GET", &long, "POST"),
            ApiError::unknown_encoding(&long),
            ApiError::foreign_host(&long),
            ApiError::foreign_origin(&long),
        ] {
            assert!(error.to_json().to_string().len() < 500);
        }
    }

    #[test]
    fn the_parameter_is_named() {
        let json = ApiError::invalid("messages[0].role", "no").to_json();
        assert_eq!(json["error"]["param"], "messages[0].role");
        assert_eq!(json["error"]["type"], "invalid_request_error");
    }
}
