//! Bodies: taken within bounds, then parsed with errors that name the field.

use super::decode::Decoder;
use super::fault::{BYTE_ORDER_MARK, named, refused, within};
use crate::account::Account;
use crate::admission::WorkPermit;
use crate::connection::Activity;
use crate::error::ApiError;
use crate::state::AppState;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// A JSON body, whatever the content type says, the permit to work on it, and the request's account; errors name the field.
pub(crate) struct Body<T>(pub T, pub WorkPermit, pub Arc<Account>);

/// The same of a request that asks no model for an answer: taken however many answers are waited for.
pub(crate) struct UnqueuedBody<T>(pub T, pub WorkPermit, pub Arc<Account>);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<AppState>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<AppState>) -> Result<Self, ApiError> {
        state.admits()?;
        take(request, state).await.map(|(parsed, permit, account)| Self(parsed, permit, account))
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<AppState>> for UnqueuedBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<AppState>) -> Result<Self, ApiError> {
        state.takes_bodies()?;
        take(request, state).await.map(|(parsed, permit, account)| Self(parsed, permit, account))
    }
}

async fn take<T: DeserializeOwned + Send + 'static>(
    request: Request,
    state: &AppState,
) -> Result<(T, WorkPermit, Arc<Account>), ApiError> {
    let account = request.extensions().get::<Arc<Account>>().cloned().unwrap_or_default();
    let route = request.uri().path().to_owned();
    let (bytes, permit) = admit(request, state).await?;
    let parsed = permit.work_here_if_light(move || parse(&bytes).map_err(|error| error.advised(&route))).await?;
    Ok((parsed, permit, account))
}

/// Takes a request's body, and the permit to work on it.
///
/// # Errors
/// 408, 413, 415 and 429: it takes too long, is too long, is encoded otherwise, or is one too many.
async fn admit(request: Request, state: &AppState) -> Result<(Vec<u8>, WorkPermit), ApiError> {
    let claimed = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if claimed.is_some_and(|claimed| claimed > state.body_limit as u64) {
        return Err(ApiError::too_large(state.body_limit));
    }
    let activity = request.extensions().get::<Arc<Activity>>().cloned();
    let share = state.admission.share();
    let (head, body) = request.into_parts();
    let decoder = Decoder::new(&head.headers, state.body_limit, &share)?;
    let bytes = read(body, state, decoder).await?;
    if let Some(activity) = activity {
        activity.body_read();
    }
    let permit = state.admission.begin(share, bytes.len()).await?;
    Ok((bytes, permit))
}

async fn read(mut body: axum::body::Body, state: &AppState, mut decoder: Decoder<'_>) -> Result<Vec<u8>, ApiError> {
    let end = Instant::now() + state.limits.body;
    loop {
        let pause = Instant::now() + state.limits.pause;
        let frame = match timeout_at(pause.min(end), body.frame()).await {
            Err(_) => return Err(ApiError::slow_body()),
            Ok(None) => return decoder.end(),
            Ok(Some(Err(error))) => return Err(ApiError::invalid("", format!("the body did not come whole: {error}"))),
            Ok(Some(Ok(frame))) => frame,
        };
        if let Ok(data) = frame.into_data() {
            decoder.take(&data).await?;
        }
    }
}

/// Parses a body. Never takes more than ten times its bytes: what is not text of the request's own is bounded while it is read.
///
/// # Errors
/// 400 with the path of the field at fault and one sentence about it.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value: T = serde_path_to_error::deserialize(&mut deserializer).map_err(|e| {
        let path = named(e.path());
        refused(&path, e.inner(), bytes)
    })?;
    deserializer.end().map_err(|e| refused("", &e, bytes))?;
    Ok(value)
}

/// Parses a part of a body that was told apart from others first.
///
/// # Errors
/// What is wrong with it, in words that follow its name.
pub(crate) fn parse_within<'de, T: serde::Deserialize<'de>>(text: &'de str) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|e| within(&named(e.path()), e.inner()))
}

#[cfg(test)]
mod tests;
