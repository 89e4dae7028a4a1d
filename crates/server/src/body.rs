use crate::error::ApiError;
use crate::state::AppState;
use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A JSON body, whatever the content type says; errors name the field.
pub(crate) struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<AppState>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<AppState>) -> Result<Self, ApiError> {
        let bytes =
            to_bytes(request.into_body(), state.body_limit).await.map_err(|_| ApiError::too_large(state.body_limit))?;
        parse(&bytes).map(Body)
    }
}

/// Parses a body.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value: T = serde_path_to_error::deserialize(&mut deserializer).map_err(|e| {
        let path = e.path().to_string();
        let at = if path == "." { String::new() } else { format!("{path}: ") };
        ApiError::invalid(path, format!("the body is not what this route takes: {at}{}", e.inner()))
    })?;
    deserializer.end().map_err(|e| ApiError::invalid("", format!("the body goes on after its JSON value: {e}")))?;
    Ok(value)
}
