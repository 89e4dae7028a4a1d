//! A request's entries in the log: its id, its client, and what it cost.

use crate::ids::unique;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The header that carries a request's id, both ways.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of a client's id at most; a longer one is replaced.
const ID: usize = 128;

/// A request's id: its client's if that is short and visible ASCII, else one of this server's.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// The id of a request with these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(REQUEST_ID).iter();
        let sane = |id: &&HeaderValue| (1..=ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
        match (given.next().filter(sane), given.next()) {
            (Some(id), None) => Self(id.clone()),
            _ => Self::new(),
        }
    }

    /// An id that no other request of this process has.
    pub(crate) fn new() -> Self {
        Self(HeaderValue::try_from(unique("req-")).unwrap_or(HeaderValue::from_static("req")))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Puts it into an answer's head.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(REQUEST_ID, self.0.clone());
    }
}

/// The address that a request came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client(pub SocketAddr);

/// Cost of a request as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Account(Mutex<Entries>);

/// Entries of an account.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entries {
    /// The model that answers.
    pub model: Option<String>,
    /// Tokens of the prompts.
    pub prompt_tokens: Option<usize>,
    /// Tokens that were generated.
    pub completion_tokens: Option<usize>,
    /// Time of the first of them.
    pub first: Option<Instant>,
}

impl Account {
    /// The entries so far.
    pub(crate) fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token was generated.
    pub(crate) fn token(&self) {
        let entries = &mut *self.entries();
        *entries.completion_tokens.get_or_insert(0) += 1;
        entries.first.get_or_insert_with(Instant::now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_id_is_kept_if_it_is_sane() {
        let of = |ids: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for id in ids {
                headers.append(REQUEST_ID, HeaderValue::from_bytes(id).unwrap());
            }
            RequestId::of(&headers).as_str().to_owned()
        };
        for id in ["a", "0b1c-22/x=~", &"x".repeat(ID)] {
            assert_eq!(of(&[id.as_bytes()]), id);
        }
        let long = [b'x'; ID + 1];
        let others: [&[&[u8]]; 6] = [&[], &[b""], &[b"a b"], &[b"\xc3\xa9"], &[&long], &[b"a", b"b"]];
        for ids in others {
            assert!(of(ids).starts_with("req-"), "{ids:?}");
        }
        assert_ne!(of(&[]), of(&[]));
    }
}
