//! Refusals of connections: 503 for a request that finds no room, whatever part of it has come.

use super::connections::Place;
use super::probe::whole;
use super::socket::{LINGER, LINGER_BYTES};
use crate::account::RequestId;
use crate::error::ApiError;
use axum::http::Version;
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Tells the client that there is no room, then takes what it is still sending, within bounds: closing on unread bytes would reset the
/// connection, and with it the answer. Its place is free for others at once.
pub(super) async fn refuse(mut socket: TcpStream, mut place: Place) {
    place.leave();
    let crowded = whole(crowded(), Version::HTTP_11, false, false).await;
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

/// Tells a client for which there is no place at all that there is no room. Nothing waits for it: what it sends is taken as far as it is
/// there, and what it does not take at once is lost.
pub(super) async fn turn_away(socket: &TcpStream) {
    let crowded = whole(crowded(), Version::HTTP_11, false, false).await;
    // A client that has gone needs no answer.
    let _ = socket.try_write(&crowded);
    while let Ok(1..) = socket.try_read(&mut [0; 4 << 10]) {}
}

/// The refusal, with an id by which the log and the client can name it.
fn crowded() -> Response {
    let (id, mut response) = (RequestId::new(), ApiError::crowded().into_response());
    id.mark(response.headers_mut());
    tracing::debug!(request_id = id.as_str(), status = response.status().as_u16(), "no connection is free");
    response
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_client_for_which_there_is_no_place_is_told_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        socket.readable().await.unwrap();
        turn_away(&socket).await;
        drop(socket);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        for part in ["HTTP/1.1 503", "retry-after: 1", "x-request-id: req-", "server.limits.connections"] {
            assert!(answer.contains(part), "{answer}");
        }
    }
}
