//! Probes: requests so plain that the thread which accepts answers them itself.

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, Version, header};
use std::io::Write;
use std::time::SystemTime;

/// Paths that are answered here.
const PROBES: [&str; 3] = ["/health", "/ready", "/metrics"];
const METHODS: [&str; 2] = ["GET ", "HEAD "];
/// Bytes of a probe's head at most; a longer one is served like any request.
const HEAD: usize = 8 << 10;
/// Headers of a probe at most, likewise.
const HEADERS: usize = 64;

/// A connection's next bytes.
pub(super) enum Look {
    /// Too few bytes to tell.
    More,
    /// A probe's whole head of so many bytes; `keep` the connection open after it.
    Probe { head: usize, request: Box<Request<Body>>, keep: bool },
    /// Something else, or a probe that is not plain.
    Other,
}

/// Tells probes from everything else.
pub(super) fn look(bytes: &[u8]) -> Look {
    if !may_become_probe(bytes) {
        return Look::Other;
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD => return Look::More,
        _ => return Look::Other,
    };
    probe(&parsed).map_or(Look::Other, |(request, keep)| Look::Probe { head, request: Box::new(request), keep })
}

/// The bytes agree with the beginning of a probe, as far as both go.
fn may_become_probe(bytes: &[u8]) -> bool {
    METHODS.iter().any(|method| {
        PROBES
            .iter()
            .any(|path| method.bytes().chain(path.bytes()).zip(bytes).all(|(expected, &byte)| expected == byte))
    })
}

/// The request, and true if the connection stays open; `None` if it is not a plain probe.
fn probe(parsed: &httparse::Request<'_, '_>) -> Option<(Request<Body>, bool)> {
    let (method, target, minor) = (parsed.method?, parsed.path?, parsed.version?);
    let version = if minor == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut request = Request::builder().method(method).uri(target).version(version);
    let mut keep = minor == 1;
    for field in parsed.headers.iter() {
        let name = field.name.to_ascii_lowercase();
        match name.as_str() {
            // They may come with a body, or mean to change the protocol.
            "content-length" | "transfer-encoding" | "expect" | "upgrade" => return None,
            "connection" => keep &= !field.value.to_ascii_lowercase().windows(5).any(|word| word == b"close"),
            _ => {}
        }
        request = request.header(name, field.value);
    }
    let request = request.body(Body::empty()).ok()?;
    PROBES.contains(&request.uri().path()).then_some((request, keep))
}

/// An answer as bytes.
pub(super) async fn whole(response: Response<Body>, version: Version, keep: bool, head_only: bool) -> Vec<u8> {
    let (parts, body) = response.into_parts();
    let body = match to_bytes(body, usize::MAX).await {
        Ok(body) => body,
        Err(error) => format!("the answer could not be written: {error}").into(),
    };
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    let _ = write!(bytes, "{version:?} {}\r\ndate: {}\r\n", parts.status, httpdate::fmt_http_date(SystemTime::now()));
    for (name, value) in parts.headers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH) {
        let _ = write!(bytes, "{name}: ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let length = match parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()) {
        Some(length) if head_only => length.to_owned(),
        _ => body.len().to_string(),
    };
    let close = if keep { "" } else { "connection: close\r\n" };
    let _ = write!(bytes, "content-length: {length}\r\n{close}\r\n");
    if !head_only {
        bytes.extend_from_slice(&body);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(bytes: &str) -> &'static str {
        match look(bytes.as_bytes()) {
            Look::More => "more",
            Look::Probe { keep: true, .. } => "probe",
            Look::Probe { keep: false, .. } => "last probe",
            Look::Other => "other",
        }
    }

    #[test]
    fn only_plain_probes_are_answered_here() {
        for (bytes, expected) in [
            ("", "more"),
            ("G", "more"),
            ("GET /re", "more"),
            ("GET /ready HTTP/1.1\r\nhost: x\r\n", "more"),
            ("GET /ready HTTP/1.1\r\nhost: x\r\n\r\n", "probe"),
            ("GET /ready HTTP/1.1\r\nhost: x\r\n\r\nPOST /", "probe"),
            ("HEAD /health?x=1 HTTP/1.1\r\nhost: x\r\n\r\n", "probe"),
            ("GET /metrics HTTP/1.0\r\n\r\n", "last probe"),
            ("GET /metrics HTTP/1.1\r\nConnection: Close\r\n\r\n", "last probe"),
            ("P", "other"),
            ("GET /v1/models HTTP/1.1\r\n\r\n", "other"),
            ("GET /readying HTTP/1.1\r\n\r\n", "other"),
            ("GET /ready HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello", "other"),
            ("GET /ready HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", "other"),
            ("GET /ready HTTP/1.1\r\nno colon\r\n\r\n", "other"),
            ("GET /ready HTTP/2.0\r\n\r\n", "other"),
            ("\u{16}\u{3}\u{1}", "other"),
        ] {
            assert_eq!(kind(bytes), expected, "{bytes:?}");
        }
        assert_eq!(kind(&format!("GET /ready HTTP/1.1\r\nx: {}", "y".repeat(HEAD))), "other");
    }
}
