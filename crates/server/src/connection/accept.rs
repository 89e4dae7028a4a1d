//! The thread that accepts: it answers probes itself, so that they wait for nothing that others do, and hands every other connection
//! over with the bytes that it has read.

use super::activity::{Activity, Close};
use super::connections::Place;
use super::http;
use super::probe::{Look, look, whole};
use super::refuse::{make_room, refuse, turn_away};
use super::server::Server;
use crate::account::Client;
use axum::body::Body;
use axum::http::{Method, Request};
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
/// Waits for a place before a connection is refused.
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
                server.connections.evict();
                sleep(WAIT).await;
                continue;
            }
        };
        let Some(place) = place(&server).await else {
            turn_away(&socket).await;
            continue;
        };
        // Tokens are small packets; without this they would wait for each other. A socket that refuses is slower, not broken.
        let _ = socket.set_nodelay(true);
        tokio::spawn(greet(socket, place, server.clone()));
    }
}

async fn place(server: &Arc<Server>) -> Option<Place> {
    for _ in 0..WAITS {
        if let Some(place) = server.connections.enter() {
            // One that was asked to close for it closes meanwhile.
            tokio::task::yield_now().await;
            return Some(place);
        }
        sleep(WAIT).await;
    }
    None
}

/// The next step of a connection whose probes are answered.
enum Next {
    /// A request that is no probe: served by the others.
    HandOver,
    /// It has ended.
    End,
    /// It was asked to close.
    Close(Close),
}

/// Answers a connection's probes; hands it over with its first request that is none.
async fn greet(mut socket: TcpStream, place: Place, server: Arc<Server>) {
    let activity = place.activity.clone();
    // None if it has gone already.
    let client = socket.peer_addr().ok();
    tracing::trace!(connection = place.id, client = client.map(tracing::field::display), "opened");
    let mut bytes = Vec::new();
    let next = tokio::select! {
        next = probes((&mut socket, client.map(Client)), &mut bytes, &activity, &server) => next,
        why = activity.closed() => Next::Close(why),
        reason = activity.timed_out(&server.state.limits) => {
            tracing::debug!(reason, "a connection is closed");
            Next::End
        }
    };
    match next {
        Next::End | Next::Close(Close::End) => {}
        Next::Close(Close::Room) => make_room(socket, place, activity.unanswered()).await,
        Next::HandOver if place.extra => refuse(socket, place).await,
        Next::HandOver => {
            let Ok(socket) = socket.into_std() else { return };
            let api = server.api.clone();
            api.spawn(async move {
                match TcpStream::from_std(socket) {
                    Ok(socket) => http::serve(socket, bytes, place, server).await,
                    Err(error) => tracing::warn!(%error, "a connection could not be served"),
                }
            });
        }
    }
}

/// Answers probes until something else comes; `bytes` are those that have been read and not answered.
async fn probes(
    (socket, client): (&mut TcpStream, Option<Client>),
    bytes: &mut Vec<u8>,
    activity: &Activity,
    server: &Server,
) -> Next {
    loop {
        match look(bytes) {
            Look::Other => return Next::HandOver,
            Look::More => {
                // Idle connections need no buffer.
                if socket.readable().await.is_err() {
                    return Next::End;
                }
                bytes.reserve(READ);
                if !matches!(socket.read_buf(bytes).await, Ok(1..)) {
                    return Next::End;
                }
                activity.read();
            }
            Look::Probe { head, request, keep } => {
                bytes.drain(..head);
                activity.begin(request.version(), false).await;
                let mut request = *request;
                client.and_then(|client| request.extensions_mut().insert(client));
                let answer = answer(request, keep, server).await;
                if !matches!(timeout(server.state.limits.write, socket.write_all(&answer)).await, Ok(Ok(()))) {
                    return Next::End;
                }
                activity.answered();
                if !keep {
                    // It may have gone already.
                    let _ = socket.shutdown().await;
                    return Next::End;
                }
                if !bytes.is_empty() {
                    activity.read();
                }
            }
        }
    }
}

async fn answer(request: Request<Body>, keep: bool, server: &Server) -> Vec<u8> {
    let (version, head_only) = (request.version(), request.method() == Method::HEAD);
    let response = server.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
    whole(response, version, keep, head_only).await
}
