//! The thread that accepts: it answers probes itself, so that they wait for nothing that others do, and hands every other connection
//! over with the bytes that it has read.

use crate::connection;
use crate::error::ApiError;
use crate::io::{LINGER, LINGER_BYTES};
use crate::listen::Shared;
use crate::register::Place;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, Version, header};
use axum::response::IntoResponse;
use std::convert::Infallible;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;

/// What is answered here.
const PROBES: [&str; 3] = ["/health", "/ready", "/metrics"];
/// How its head begins.
const STARTS: [&[u8]; 6] =
    [b"GET /health", b"GET /ready", b"GET /metrics", b"HEAD /health", b"HEAD /ready", b"HEAD /metrics"];
/// Bytes of a probe's head at most; a longer one is served like any request.
const HEAD: usize = 8 << 10;
/// Bytes that are read at a time.
const READ: usize = 4 << 10;
/// Headers of a probe at most, likewise.
const HEADERS: usize = 64;
/// Wait for descriptors or places to come free.
const WAIT: Duration = Duration::from_millis(10);
/// Times that a connection waits so before it is closed.
const WAITS: usize = 100;

/// Accepts connections for ever.
///
/// # Errors
/// The listener cannot be used.
pub(crate) async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) -> io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    let mut said: Option<Instant> = None;
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            // The client has gone already; that is no lack of room.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
                ) =>
            {
                continue;
            }
            Err(error) => {
                // Most often there are no descriptors left. The connection waits in the system's queue.
                if said.is_none_or(|said| said.elapsed() > Duration::from_secs(10)) {
                    tracing::warn!(%error, "a connection could not be accepted; idle ones are closed to make room");
                    said = Some(Instant::now());
                }
                shared.register.evict();
                sleep(WAIT).await;
                continue;
            }
        };
        let Some(place) = place(&shared).await else { continue };
        // Tokens are small packets; without this they would wait for each other. A socket that refuses is slower, not broken.
        let _ = socket.set_nodelay(true);
        tokio::spawn(greet(socket, place, shared.clone()));
    }
}

async fn place(shared: &Arc<Shared>) -> Option<Place> {
    for _ in 0..WAITS {
        if let Some(place) = shared.register.enter() {
            // One that was asked to close for it closes meanwhile.
            tokio::task::yield_now().await;
            return Some(place);
        }
        sleep(WAIT).await;
    }
    None
}

/// Answers a connection's probes; hands it over with its first request that is none.
async fn greet(mut socket: TcpStream, place: Place, shared: Arc<Shared>) {
    let conn = place.conn.clone();
    let limits = &shared.state.limits;
    let mut bytes = Vec::new();
    let talk = async {
        loop {
            match look(&bytes) {
                Look::Other => return true,
                Look::More => {
                    // Idle connections need no buffer.
                    if socket.readable().await.is_err() {
                        return false;
                    }
                    bytes.reserve(READ);
                    if !matches!(socket.read_buf(&mut bytes).await, Ok(1..)) {
                        return false;
                    }
                    conn.read();
                }
                Look::Probe { head, request, keep } => {
                    bytes.drain(..head);
                    conn.begin(request.version(), false).await;
                    let answer = answer(*request, keep, &shared).await;
                    if !matches!(timeout(limits.write, socket.write_all(&answer)).await, Ok(Ok(()))) {
                        return false;
                    }
                    conn.answered();
                    if !keep {
                        // It may have gone already.
                        let _ = socket.shutdown().await;
                        return false;
                    }
                    if !bytes.is_empty() {
                        conn.read();
                    }
                }
            }
        }
    };
    let hand_over = tokio::select! {
        hand_over = talk => hand_over,
        () = conn.closed() => false,
        () = overdue(&place, &shared) => false,
    };
    if !hand_over {
        return;
    }
    if place.extra {
        let crowded = whole(ApiError::crowded().into_response(), Version::HTTP_11, false, false).await;
        tokio::select! {
            // Nobody waits long for a client that does not take so few bytes; newcomers need the place at once.
            _ = timeout(LINGER, last_answer(socket, &crowded)) => {}
            () = conn.closed() => {}
        }
        return;
    }
    let Ok(socket) = socket.into_std() else { return };
    let api = shared.api.clone();
    api.spawn(async move {
        match TcpStream::from_std(socket) {
            Ok(socket) => connection::serve(socket, bytes, place, shared).await,
            Err(error) => tracing::warn!(%error, "a connection could not be served"),
        }
    });
}

/// Writes an answer, then takes what the client is still sending, within bounds: closing on unread bytes would reset the connection, and
/// with it the answer.
async fn last_answer(mut socket: TcpStream, answer: &[u8]) -> io::Result<()> {
    socket.write_all(answer).await?;
    socket.shutdown().await?;
    let mut rest = socket.take(LINGER_BYTES);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Resolves when the connection has been waited for too long.
async fn overdue(place: &Place, shared: &Shared) {
    while place.conn.overdue(&shared.state.limits).is_none() {
        sleep(shared.state.limits.tick()).await;
    }
}

async fn answer(request: Request<Body>, keep: bool, shared: &Shared) -> Vec<u8> {
    let (version, head_only) = (request.version(), request.method() == Method::HEAD);
    let response = shared.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
    whole(response, version, keep, head_only).await
}

/// An answer as bytes.
async fn whole(response: Response<Body>, version: Version, keep: bool, head_only: bool) -> Vec<u8> {
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

/// What a connection's next bytes are.
enum Look {
    /// Too few to tell.
    More,
    /// A probe's whole head of so many bytes, and whether the connection stays open after it.
    Probe { head: usize, request: Box<Request<Body>>, keep: bool },
    /// Something else, or a probe that is not plain.
    Other,
}

fn look(bytes: &[u8]) -> Look {
    if !STARTS.iter().any(|start| start.iter().zip(bytes).all(|(a, b)| a == b)) {
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

/// The request, and whether the connection stays open; `None` if it is not a plain probe.
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
