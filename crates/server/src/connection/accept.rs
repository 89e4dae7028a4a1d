//! The thread that accepts: it answers probes itself, so that they wait for nothing that others do, and hands every other connection
//! over with the bytes that it has read.

use super::probe::{Look, look, whole};
use super::registry::Place;
use super::socket::{LINGER, LINGER_BYTES};
use super::{Server, http};
use crate::error::ApiError;
use axum::body::Body;
use axum::http::{Method, Request, Version};
use axum::response::IntoResponse;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;

/// Bytes that are read at a time.
const READ: usize = 4 << 10;
/// Wait for descriptors or places to come free.
const WAIT: Duration = Duration::from_millis(10);
/// Waits for a place before a connection is closed.
const WAITS: usize = 100;
/// Errors of clients that have gone already; they are no lack of room.
const GONE: [ErrorKind; 3] = [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset, ErrorKind::ConnectionRefused];

/// Accepts connections for ever.
///
/// # Errors
/// The listener cannot be used.
pub(super) async fn accept(listener: std::net::TcpListener, server: Arc<Server>) -> io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    let mut said: Option<Instant> = None;
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) if GONE.contains(&error.kind()) => continue,
            Err(error) => {
                // Most often there are no descriptors left. The connection waits in the system's queue.
                if said.is_none_or(|said| said.elapsed() > Duration::from_secs(10)) {
                    tracing::warn!(%error, "a connection could not be accepted; idle ones are closed to make room");
                    said = Some(Instant::now());
                }
                server.registry.evict();
                sleep(WAIT).await;
                continue;
            }
        };
        let Some(place) = place(&server).await else { continue };
        // Tokens are small packets; without this they would wait for each other. A socket that refuses is slower, not broken.
        let _ = socket.set_nodelay(true);
        tokio::spawn(greet(socket, place, server.clone()));
    }
}

async fn place(server: &Arc<Server>) -> Option<Place> {
    for _ in 0..WAITS {
        if let Some(place) = server.registry.enter() {
            // One that was asked to close for it closes meanwhile.
            tokio::task::yield_now().await;
            return Some(place);
        }
        sleep(WAIT).await;
    }
    None
}

/// Answers a connection's probes; hands it over with its first request that is none.
async fn greet(mut socket: TcpStream, place: Place, server: Arc<Server>) {
    let activity = place.activity.clone();
    let limits = &server.state.limits;
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
                    activity.read();
                }
                Look::Probe { head, request, keep } => {
                    bytes.drain(..head);
                    activity.begin(request.version(), false).await;
                    let answer = answer(*request, keep, &server).await;
                    if !matches!(timeout(limits.write, socket.write_all(&answer)).await, Ok(Ok(()))) {
                        return false;
                    }
                    activity.answered();
                    if !keep {
                        // It may have gone already.
                        let _ = socket.shutdown().await;
                        return false;
                    }
                    if !bytes.is_empty() {
                        activity.read();
                    }
                }
            }
        }
    };
    let hand_over = tokio::select! {
        hand_over = talk => hand_over,
        () = activity.closed() => false,
        reason = activity.timed_out(limits) => {
            tracing::debug!(reason, "a connection is closed");
            false
        }
    };
    if !hand_over {
        return;
    }
    if place.extra {
        let crowded = whole(ApiError::crowded().into_response(), Version::HTTP_11, false, false).await;
        tokio::select! {
            // Nobody waits long for a client that does not take so few bytes; newcomers need the place at once.
            _ = timeout(LINGER, last_answer(socket, &crowded)) => {}
            () = activity.closed() => {}
        }
        return;
    }
    let Ok(socket) = socket.into_std() else { return };
    let api = server.api.clone();
    api.spawn(async move {
        match TcpStream::from_std(socket) {
            Ok(socket) => http::serve(socket, bytes, place, server).await,
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

async fn answer(request: Request<Body>, keep: bool, server: &Server) -> Vec<u8> {
    let (version, head_only) = (request.version(), request.method() == Method::HEAD);
    let response = server.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
    whole(response, version, keep, head_only).await
}
