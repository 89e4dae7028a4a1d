//! Bodies: taken within bounds, then parsed with errors that name the field.

use crate::admission::{Share, WorkPermit};
use crate::connection::Activity;
use crate::error::{ApiError, shorten};
use crate::state::AppState;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Bytes of each body that are not counted: small requests pass while large ones take all that there is.
const UNCOUNTED: usize = 16 << 10;

/// A JSON body, whatever the content type says, and the permit to work on it; errors name the field.
pub(crate) struct Body<T>(pub T, pub WorkPermit);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<AppState>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<AppState>) -> Result<Self, ApiError> {
        let (bytes, permit) = admit(request, state).await?;
        let parsed = permit.work_here_if_light(move || parse(&bytes)).await?;
        Ok(Body(parsed, permit))
    }
}

/// Takes a request's body, and the permit to work on it.
///
/// # Errors
/// 408, 413, 429 and 503: it takes too long, is too long, is one too many, or cannot be served now.
async fn admit(request: Request, state: &AppState) -> Result<(Vec<u8>, WorkPermit), ApiError> {
    state.admits()?;
    let claimed = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if claimed.is_some_and(|claimed| claimed > state.body_limit as u64) {
        return Err(ApiError::too_large(state.body_limit));
    }
    let activity = request.extensions().get::<Arc<Activity>>().cloned();
    let share = state.admission.share();
    let bytes = read(request.into_body(), state, &share).await?;
    if let Some(activity) = activity {
        activity.body_read();
    }
    let permit = state.admission.begin(share, bytes.len()).await?;
    Ok((bytes, permit))
}

async fn read(mut body: axum::body::Body, state: &AppState, share: &Share) -> Result<Vec<u8>, ApiError> {
    let end = Instant::now() + state.limits.body;
    let mut bytes = Vec::new();
    loop {
        let pause = Instant::now() + state.limits.pause;
        let frame = match timeout_at(pause.min(end), body.frame()).await {
            Err(_) => return Err(ApiError::slow_body()),
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(error))) => return Err(ApiError::invalid("", format!("the body did not come whole: {error}"))),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > state.body_limit {
            return Err(ApiError::too_large(state.body_limit));
        }
        let uncounted = UNCOUNTED.saturating_sub(bytes.len()).min(data.len());
        if !share.grow(data.len() - uncounted) {
            return Err(ApiError::crowded_bodies());
        }
        bytes.extend_from_slice(&data);
    }
}

/// Parses a body. Never takes more than ten times its bytes: what is not text of the request's own is bounded while it is read.
///
/// # Errors
/// 400 with the path of the field at fault and one sentence about it.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value: T = serde_path_to_error::deserialize(&mut deserializer).map_err(|e| {
        let path = e.path().to_string();
        // `?` stands where the text broke off in the middle of a key, `.` for the whole body.
        refused(path.trim_end_matches(['?', '.']), e.inner())
    })?;
    deserializer.end().map_err(|e| ApiError::invalid("", format!("the body goes on after its JSON value: {e}")))?;
    Ok(value)
}

/// The error for the value at `path`.
fn refused(path: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let subject = if path.is_empty() { "the body".into() } else { shorten(path) };
    if !error.is_data() {
        // What is no JSON, or no number that can be held; the place in the text says most.
        return ApiError::invalid(param(path), format!("{subject} cannot be read as JSON: {}", shorten(&text)));
    }
    let text = text.strip_suffix(&format!(" at line {} column {}", error.line(), error.column())).unwrap_or(&text);
    // A field that is not there has no place of its own.
    if let Some(field) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let path = if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
        return ApiError::invalid(param(&path), format!("{} is missing", shorten(&path)));
    }
    let typed = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    let message = match typed.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, "i64")) if exceeds_64_bits(found) => {
            format!("{subject} is {}; it must fit 64 bits, signed", shorten(number(found)))
        }
        Some((found, expected)) => format!("{subject}: expected {}, found {}", plain(expected), shorten(plain(found))),
        None => format!("{subject} {}", shorten(text)),
    };
    ApiError::invalid(param(path), message)
}

/// The field to blame: entries of a list have no name of their own.
fn param(mut path: &str) -> String {
    while path.ends_with(']')
        && let Some((list, _)) = path.rsplit_once('[')
    {
        path = list;
    }
    shorten(path).into_owned()
}

/// The number that serde found, without its kind.
fn number(found: &str) -> &str {
    found.split('`').nth(1).unwrap_or(found)
}

fn exceeds_64_bits(found: &str) -> bool {
    number(found).parse::<f64>().is_ok_and(|number| number.abs() >= i64::MAX as f64)
}

/// Serde's word for a kind of value in JSON's words.
fn plain(word: &str) -> &str {
    match word {
        "f32" => "a number",
        "i64" => "an integer",
        "u32" | "usize" => "an integer of at least 0",
        "sequence" | "a sequence" => "a list",
        "map" => "an object",
        other => other,
    }
}

#[cfg(test)]
mod tests;
