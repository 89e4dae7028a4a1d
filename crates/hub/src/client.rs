//! The hub's HTTP API, as far as downloading needs it.

use crate::{HubError, ModelId, Options};
use serde::Deserialize;
use std::io::Read;
use std::time::Duration;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

/// Bytes of the answer that lists a repository's files, at most.
const MAX_LISTING: u64 = 16 << 20;
/// Time limit of a body, after which the rest of it is requested again: a connection may have died in silence.
const BODY_LIMIT: Duration = Duration::from_secs(600);
/// The one file of a model that lies in a folder of its own: an embedding model's.
pub(crate) const POOLING: &str = "1_Pooling/config.json";

/// A connection to the hub.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// A commit and its files.
#[derive(Debug)]
pub(crate) struct Repository {
    pub commit: String,
    pub files: Vec<RemoteFile>,
}

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    pub name: String,
    pub size: u64,
    pub hash: Hash,
}

/// Hash that the hub names contents by; in hexadecimal, the blob's name in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hash {
    /// Large files: SHA-256 of the content.
    Sha256(String),
    /// Files in git itself: SHA-1 of a header and the content.
    Git(String),
}

impl Hash {
    pub(crate) fn hex(&self) -> &str {
        match self {
            Hash::Sha256(hex) | Hash::Git(hex) => hex,
        }
    }
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Client {
    pub(crate) fn new(options: &Options) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_recv_body(Some(BODY_LIMIT))
            .user_agent(concat!("mlx-serving/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let endpoint = options.endpoint.trim_end_matches('/').to_owned();
        Self { agent, endpoint, token: options.token.clone() }
    }

    /// The commit that the id's revision stands for, and its files in the repository's root, and [`POOLING`].
    pub(crate) fn repository(&self, id: &ModelId) -> Result<Repository, HubError> {
        // All that a revision has of what an address must not: a slash is no part of a path there.
        let revision = id.revision().replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision}?blobs=true", self.endpoint, id.name());
        let mut response = self.get(id, &url, 0)?;
        let text = response.body_mut().with_config().limit(MAX_LISTING).read_to_string();
        let text = text.map_err(|error| HubError::Network { url: url.clone(), reason: error.to_string() })?;
        let bad = |reason: String| HubError::Answer { url: url.clone(), reason };
        let listing: Listing = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        if !is_hex(&listing.sha) {
            return Err(bad(format!("{:?} is not a commit", listing.sha)));
        }
        let plain = |file: &Sibling| is_plain(&file.rfilename) || file.rfilename == POOLING;
        let files = listing.siblings.into_iter().filter(plain);
        let files = files.map(|file| file.checked().map_err(bad)).collect::<Result<_, _>>()?;
        Ok(Repository { commit: listing.sha, files })
    }

    /// A file's content from byte `from` on, and the byte that it really starts at: 0 when the hub sends it whole.
    pub(crate) fn file(
        &self,
        id: &ModelId,
        commit: &str,
        name: &str,
        from: u64,
    ) -> Result<(u64, impl Read + use<>), HubError> {
        let response = self.get(id, &self.file_url(id, commit, name), from)?;
        let start = if response.status() == StatusCode::PARTIAL_CONTENT { from } else { 0 };
        Ok((start, response.into_body().into_reader()))
    }

    pub(crate) fn file_url(&self, id: &ModelId, commit: &str, name: &str) -> String {
        format!("{}/{}/resolve/{commit}/{name}", self.endpoint, id.name())
    }

    fn get(&self, id: &ModelId, url: &str, from: u64) -> Result<Response<Body>, HubError> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        let response =
            request.call().map_err(|error| HubError::Network { url: url.to_owned(), reason: error.to_string() })?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(id, url, response)) }
    }

    fn refusal(&self, id: &ModelId, url: &str, mut response: Response<Body>) -> HubError {
        let (id, endpoint) = (id.clone(), self.endpoint.clone());
        // The hub answers 401 for what does not exist, too, and says in this header what it means.
        let code = response.headers().get("x-error-code").and_then(|value| value.to_str().ok()).unwrap_or_default();
        match (code, response.status().as_u16()) {
            ("GatedRepo", _) => HubError::Forbidden { id, endpoint },
            ("RevisionNotFound", _) if id.named_revision().is_some() => HubError::NoRevision { id, endpoint },
            ("RepoNotFound" | "RevisionNotFound" | "EntryNotFound", _) | (_, 404) => {
                HubError::NotFound { id, endpoint }
            }
            (_, 401 | 403) => HubError::Forbidden { id, endpoint },
            (_, status) => {
                let mut start = String::new();
                // An answer that cannot be read tells nothing more than its number does.
                let _ = response.body_mut().as_reader().take(200).read_to_string(&mut start);
                let body = if start.trim().is_empty() { String::new() } else { format!(": {}", start.trim()) };
                HubError::Status { url: url.to_owned(), status, body }
            }
        }
    }
}

impl Sibling {
    fn checked(self) -> Result<RemoteFile, String> {
        let name = self.rfilename;
        let (hash, size) = match (self.lfs, self.blob_id, self.size) {
            (Some(lfs), ..) => (Hash::Sha256(lfs.sha256), lfs.size),
            (None, Some(id), Some(size)) => (Hash::Git(id), size),
            _ => return Err(format!("{name} has neither hash nor size")),
        };
        if !is_hex(hash.hex()) {
            return Err(format!("{name} has the hash {:?}", hash.hex()));
        }
        Ok(RemoteFile { name, size, hash })
    }
}

/// Safe as the name of a file: hashes and commits become paths.
fn is_hex(text: &str) -> bool {
    (40..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A file in the root, with a name that is safe as part of a path and of an address.
fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.starts_with('.') && !name.is_empty() && name.bytes().all(allowed)
}
