use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mlx_serving_engine::EngineError;
use serde::Serialize;

/// An error in OpenAI's shape, `{"error": {message, type, param, code}}`, and the only place that chooses status codes.
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

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { message: message.into(), kind, param: None, code: None } }
    }

    fn coded(mut self, code: &'static str) -> Self {
        self.body.code = Some(code);
        self
    }

    /// 400 with the parameter at fault.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        error.body.param = Some(param.into()).filter(|p| !p.is_empty());
        error.coded("invalid_value")
    }

    /// The same with another name for the parameter at fault: the one that this route gives it.
    pub(crate) fn renamed(mut self, from: &str, to: &str) -> Self {
        if self.body.param.as_deref() == Some(from) {
            self.body.param = Some(to.to_owned());
        }
        self
    }

    /// 404 for a model that is not served.
    pub(crate) fn unknown_model(model: &str, served: &[&str]) -> Self {
        let message =
            format!("model {model:?} is not served here; GET /v1/models lists what is: {}", served.join(", "));
        let mut error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        error.body.param = Some("model".into());
        error.coded("model_not_found")
    }

    /// 503 for a model whose engine has died and is loaded again.
    pub(crate) fn reloading(model: &str, reason: &str) -> Self {
        let message = format!("model {model} is loaded again, because its engine stopped ({reason}); try again soon");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message).coded("unavailable")
    }

    /// 404 for a path.
    pub(crate) fn unknown_route(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            format!("{path} is not a route here; the README lists them"),
        )
        .coded("not_found")
    }

    /// 405.
    pub(crate) fn wrong_method(method: &str, path: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", format!("{path} does not answer {method}"))
            .coded("method_not_allowed")
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
            EngineError::Overloaded { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message).coded("overloaded")
            }
            EngineError::Stopped(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message).coded("unavailable")
            }
            EngineError::Device(_) => Self::internal(message).coded("device_error"),
            EngineError::Slow(_) => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message).coded("slow_reader")
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.to_json())).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert("retry-after", axum::http::HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_error_has_its_status() {
        for (error, status) in [
            (EngineError::invalid("top_p", "x"), 400),
            (EngineError::Overloaded { live: 3, limit: 3, asked: 1 }, 429),
            (EngineError::Stopped("x".into()), 503),
            (EngineError::Device("x".into()), 500),
            (EngineError::Slow("x".into()), 408),
        ] {
            assert_eq!(ApiError::from(error).into_response().status(), status);
        }
    }

    #[test]
    fn the_parameter_is_named() {
        let json = ApiError::invalid("messages[0].role", "no").to_json();
        assert_eq!(json["error"]["param"], "messages[0].role");
        assert_eq!(json["error"]["type"], "invalid_request_error");
    }
}
