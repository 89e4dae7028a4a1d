//! Settings of a server that is asked.

use crate::error::BenchError;
use serde::Serialize;
use std::str::FromStr;
use std::time::Duration;
use ureq::http::Uri;

/// Route that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `/v1/completions`: prompts are texts.
    Completions,
    /// `/v1/chat/completions`: prompts are messages, in the server's chat template.
    Chat,
}

impl FromStr for Api {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "completions" => Ok(Api::Completions),
            "chat" => Ok(Api::Chat),
            _ => Err("it takes completions or chat".into()),
        }
    }
}

/// Settings of an [`Endpoint`](super::Endpoint).
#[derive(Debug, Clone)]
pub struct EndpointOptions {
    /// `http://host:port` or `https://host:port`, with the path of the API if it is not `/v1`.
    pub url: String,
    /// Route; by default chat for conversations and completions for everything else.
    pub api: Option<Api>,
    /// Name of the model; by default the first that the server lists.
    pub model: Option<String>,
    /// Key, sent as a bearer token.
    pub api_key: Option<ApiKey>,
    /// Time after which a silent server has failed.
    pub silence: Duration,
}

impl EndpointOptions {
    /// Time after which a silent server has failed, where nothing else is said.
    pub const SILENCE: Duration = Duration::from_secs(600);
}

/// A secret. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(pub(super) String);

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl From<String> for ApiKey {
    fn from(key: String) -> Self {
        Self(key)
    }
}

impl ApiKey {
    /// # Errors
    /// It cannot stand in a header.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        match !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(()),
            false => Err(BenchError::setting("api_key", "it takes visible ASCII letters, and at least one")),
        }
    }
}

/// Address of the API, and host and port.
pub(super) fn base_of(url: &str) -> Result<(String, String), BenchError> {
    let refused = |why: &str| {
        BenchError::setting(
            "url",
            format!("{why}; it takes http://HOST:PORT or https://HOST:PORT, with a path if the API is not under /v1"),
        )
    };
    let uri: Uri = url.parse().map_err(|_| refused("this is not a URL"))?;
    let authority = uri.authority().ok_or_else(|| refused("there is no host in it"))?;
    // A password would be in every record.
    if authority.as_str().contains('@') {
        return Err(refused("it has a user or a password, which is not sent"));
    }
    if uri.query().is_some() {
        return Err(refused("it has a query"));
    }
    let scheme = match uri.scheme_str() {
        Some(scheme @ ("http" | "https")) => scheme,
        _ => return Err(refused("it is neither http:// nor https://")),
    };
    let path = match uri.path().trim_end_matches('/') {
        "" => "/v1",
        path => path,
    };
    Ok((format!("{scheme}://{authority}{path}"), authority.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_the_server_and_the_api() {
        for (url, base, host) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1", "127.0.0.1:8080"),
            ("http://localhost:8080/v1/", "http://localhost:8080/v1", "localhost:8080"),
            ("https://models.example/api/v2", "https://models.example/api/v2", "models.example"),
        ] {
            assert_eq!(base_of(url).unwrap(), (base.to_owned(), host.to_owned()));
        }
        for bad in
            ["", "localhost", "ftp://host/", "http://", "http://me:secret@host", "http://host/v1?x=1", "http://a b"]
        {
            let error = base_of(bad).unwrap_err().to_string();
            assert!(error.starts_with("url: ") && !error.contains("secret"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        let key = ApiKey::from("sk-1".to_owned());
        assert!(!format!("{key:?}").contains("sk-1") && key.check().is_ok());
        for bad in ["", "sk-1\r\nx: y"] {
            let error = ApiKey::from(bad.to_owned()).check().unwrap_err().to_string();
            assert!(error.starts_with("api_key: ") && !error.contains("sk-1"), "{error}");
        }
    }
}
