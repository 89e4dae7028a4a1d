//! Refusals of connections: 503 for a request that finds no room, whatever part of it has come.

use super::connections::Place;
use super::probe::whole;
use super::socket::{LINGER, LINGER_BYTES};
use crate::error::ApiError;
use axum::http::Version;
use axum::response::IntoResponse;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Tells the client that there is no room, then takes what it is still sending, within bounds: closing on unread bytes would reset the
/// connection, and with it the answer. Its place is free for others at once.
pub(super) async fn refuse(mut socket: TcpStream, mut place: Place) {
    place.leave();
    let crowded = whole(ApiError::crowded().into_response(), Version::HTTP_11, false, false).await;
    let answer = async {
        socket.write_all(&crowded).await?;
        socket.shutdown().await
    };
    // Nobody waits long for a client that does not take so few bytes.
    if !matches!(timeout(LINGER, answer).await, Ok(Ok(()))) {
        return;
    }
    let (mut rest, mut sink) = (socket.take(LINGER_BYTES), tokio::io::sink());
    tokio::select! {
        _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut sink)) => {}
        // Newcomers need the place even so.
        _ = place.activity.closed() => {}
    }
}

/// Ends a connection that has to make room: with a refusal if any part of a request has come, `read` or not, and nothing of its answer is
/// out; otherwise without a word.
pub(super) async fn make_room(socket: TcpStream, place: Place, read: bool) {
    // The system knows what has come, even before the runtime does.
    let Ok(socket) = socket.into_std() else { return };
    let unread = || matches!(socket.peek(&mut [0]), Ok(1..));
    if !(read || unread()) {
        return;
    }
    if let Ok(socket) = TcpStream::from_std(socket) {
        refuse(socket, place).await;
    }
}
