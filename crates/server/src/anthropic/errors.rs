//! Errors in Anthropic's shape: `{"type": "error", "error": {"type": …, "message": …}}`.

use crate::error::ApiError;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use axum::response::sse::Event;
use serde_json::{Value, json};

/// The header by which Anthropic's clients say which version of the API they speak.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// Path of the dialect's routes.
const MESSAGES: &str = "/v1/messages";

/// The request's client speaks this dialect: it says so, or asks for a route that only this dialect has.
fn speaks(path: &str, headers: &HeaderMap) -> bool {
    let below = path.strip_prefix(MESSAGES);
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) || headers.contains_key(VERSION)
}

/// Tells clients of this dialect all errors in its shape, also those that are found before a route is.
pub(crate) async fn own_errors(request: Request, next: Next) -> Response {
    let speaks = speaks(request.uri().path(), request.headers());
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<ApiError>() {
        Some(error) if speaks => {
            let (mut head, _) = response.into_parts();
            head.status = status(&error);
            head.headers.remove(CONTENT_LENGTH);
            Response::from_parts(head, Body::from(object(&error).to_string()))
        }
        _ => response,
    }
}

/// The last event of a stream that fails.
pub(super) fn event(error: &ApiError) -> Event {
    Event::default().event("error").data(object(error).to_string())
}

/// The status, which differs from OpenAI's where nothing can be served for now.
fn status(error: &ApiError) -> StatusCode {
    match error.status() {
        StatusCode::SERVICE_UNAVAILABLE => StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        status => status,
    }
}

fn object(error: &ApiError) -> Value {
    let kind = match error.status().as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    let message = match error.code() {
        // The words by which agents see that they have to shorten the conversation.
        Some("context_length_exceeded") => format!("prompt is too long: {}", error.message()),
        _ => error.message().to_owned(),
    };
    json!({ "type": "error", "error": { "type": kind, "message": message } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_serving_engine::EngineError;

    #[test]
    fn every_error_has_a_type_and_a_status() {
        for (error, status_code, kind) in [
            (ApiError::invalid("x", "x"), 400, "invalid_request_error"),
            (ApiError::foreign_host("x"), 403, "permission_error"),
            (ApiError::unknown_model("x", &["y"]), 404, "not_found_error"),
            (ApiError::wrong_method("GET", "/", "POST"), 405, "invalid_request_error"),
            (ApiError::slow_body(), 408, "timeout_error"),
            (ApiError::too_large(1), 413, "request_too_large"),
            (ApiError::unknown_encoding("br"), 415, "invalid_request_error"),
            (ApiError::crowded_bodies(), 429, "rate_limit_error"),
            (ApiError::internal("x"), 500, "api_error"),
            (EngineError::Device("x".into()).into(), 500, "api_error"),
            (ApiError::draining(), 529, "overloaded_error"),
        ] {
            let object = object(&error);
            assert_eq!((status(&error).as_u16(), &object["error"]["type"]), (status_code, &json!(kind)), "{error:?}");
            assert_eq!(object["type"], "error");
        }
    }

    #[test]
    fn clients_of_the_dialect_are_known_by_path_or_header() {
        let mut headers = HeaderMap::new();
        for (path, is) in [
            ("/v1/messages", true),
            ("/v1/messages/count_tokens", true),
            ("/v1/messages/batches", true),
            ("/v1/messagesx", false),
            ("/v1/models", false),
        ] {
            assert_eq!(speaks(path, &headers), is, "{path}");
        }
        headers.insert(VERSION, axum::http::HeaderValue::from_static("2023-06-01"));
        assert!(speaks("/v1/models", &headers));
    }
}
