//! Errors on their way to TypeScript, which makes them an `EngineError`.

use mlx_serving_bindings::{Code, Error};
use serde_json::{Value, json};

/// Carries an error across: its text is JSON.
pub(crate) fn failure(error: Error) -> napi::Error {
    let Error { code, message, param, .. } = error;
    napi::Error::from_reason(json!({ "code": code.to_string(), "message": message, "param": param }).to_string())
}

/// An error of this program.
pub(crate) fn internal(message: impl Into<String>) -> napi::Error {
    failure(Error::new(Code::Internal, message))
}

/// Arguments that TypeScript has written.
pub(crate) fn parse(json: &str) -> Result<Value, Error> {
    serde_json::from_str(json)
        .map_err(|error| Error::new(Code::Internal, format!("the arguments are no JSON: {error}")))
}
