use crate::admit::{self, Admitted, Leave};
use crate::error::ApiError;
use crate::state::AppState;
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A JSON body, whatever the content type says, and leave to work on it; errors name the field.
pub(crate) struct Body<T>(pub T, pub Leave);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<AppState>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<AppState>) -> Result<Self, ApiError> {
        let Admitted { bytes, leave } = admit::admit(request, state).await?;
        let parsed = leave.work_here_if_light(move || parse(&bytes)).await?;
        Ok(Body(parsed, leave))
    }
}

/// Parses a body.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // A list would be taken for the fields in their order.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(ApiError::invalid("", "the body is a JSON list; this route takes an object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value: T = serde_path_to_error::deserialize(&mut deserializer).map_err(|e| {
        let (path, inner) = (e.path().to_string(), e.inner().to_string());
        // `?` stands where the text broke off in the middle of a key, `.` for the whole body.
        let path = path.trim_end_matches(['?', '.']);
        let at = if path.is_empty() { String::new() } else { format!("{path}: ") };
        let message = format!("the body is not what this route takes: {at}{inner}");
        // A field that is not there has no place of its own.
        let param = match inner.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
            Some(field) if path.is_empty() => field.to_owned(),
            Some(field) => format!("{path}.{field}"),
            None => path.to_owned(),
        };
        ApiError::invalid(param, message)
    })?;
    deserializer.end().map_err(|e| ApiError::invalid("", format!("the body goes on after its JSON value: {e}")))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ChatRequest;
    use crate::completions::CompletionRequest;

    fn error<T: DeserializeOwned>(body: &str) -> serde_json::Value {
        parse::<T>(body.as_bytes()).err().expect(body).to_json()
    }

    #[test]
    fn the_field_at_fault_is_named() {
        for (body, param) in [
            (r#"{"messages": 5}"#, "messages"),
            (r#"{"messages": [{"role": "robot", "content": "x"}]}"#, "messages[0].role"),
            (r#"{"messages": [{"content": "x"}]}"#, "messages[0].role"),
            (r#"{"messages": [{"role": "user", "content": 5}]}"#, "messages[0].content"),
            (r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#, "messages[0].content"),
            (r#"{"messages": [{"role": "user", "content": "x", "colour": "red"}]}"#, "messages[0].colour"),
            (r#"{"messages": [], "temperature": "hot"}"#, "temperature"),
            (r#"{"messages": [], "temperature": 1e999}"#, "temperature"),
            (r#"{"messages": [], "n": 1.5}"#, "n"),
            (r#"{"messages": [], "seed": 99999999999999999999}"#, "seed"),
            (r#"{"messages": [], "stop": [1]}"#, "stop"),
            (r#"{"messages": [], "stream": "yes"}"#, "stream"),
            (r#"{"messages": [], "stream_options": {"usage": true}}"#, "stream_options.usage"),
            (r#"{"messages": [], "logit_bias": {"1": "x"}}"#, "logit_bias.1"),
            (r#"{"messages": [], "response_format": {"type": "json_object"}}"#, "response_format.type"),
            (r#"{"messages": [], "tools": []}"#, "tools"),
            ("{}", "messages"),
        ] {
            assert_eq!(error::<ChatRequest>(body)["error"]["param"], param, "{body}");
        }
        for (body, param) in [
            ("{}", "prompt"),
            (r#"{"prompt": 5}"#, "prompt"),
            (r#"{"prompt": ["a", 1]}"#, "prompt"),
            (r#"{"prompt": [-1]}"#, "prompt"),
            (r#"{"prompt": "x", "logprobs": -1}"#, "logprobs"),
            (r#"{"prompt": "x", "best_of": 2}"#, "best_of"),
        ] {
            assert_eq!(error::<CompletionRequest>(body)["error"]["param"], param, "{body}");
        }
    }

    #[test]
    fn what_is_no_object_has_no_field() {
        let deep = format!("{{\"messages\": {}", "[".repeat(100_000));
        assert!(parse::<ChatRequest>(deep.as_bytes()).is_err());
        for body in [
            "",
            "{",
            "[]",
            "[[[[",
            r#"["m", [{"role": "user", "content": "x"}]]"#,
            "null",
            "\u{0}",
            "{'messages': []}",
            "{\"messages\": []} x",
        ] {
            let error = error::<ChatRequest>(body);
            assert_eq!(error["error"]["param"], serde_json::Value::Null, "{body:.20}: {error}");
        }
        assert!(parse::<ChatRequest>(b"{\"messages\": [], \"user\": \"\xff\"}").is_err());
    }
}
