//! One connection: requests come from its socket, answers go back, within the limits.

use super::activity::{Activity, Close, Unanswered};
use super::connections::Place;
use super::refuse::make_room;
use super::server::Server;
use super::socket::Socket;
use crate::account::{Client, RequestId};
use crate::admission::Charge;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Request, Response, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tower::ServiceExt;

/// Bytes of a head, and of an answer that waits for the client, at most.
const BUFFER: usize = 64 << 10;

/// Serves a connection whose first bytes have been read.
pub(super) async fn serve(stream: TcpStream, first: Vec<u8>, place: Place, server: Arc<Server>) {
    let activity = place.activity.clone();
    // None if it has gone already.
    let client = stream.peer_addr().ok().map(Client);
    let service = {
        let (activity, server) = (activity.clone(), server.clone());
        service_fn(move |request| answer(request, client, activity.clone(), server.clone()))
    };
    let io = TokioIo::new(Socket::new(stream, first, activity.clone()));
    let mut http = http1::Builder::new().max_buf_size(BUFFER).serve_connection(io, service);
    let close = tokio::select! {
        ended = &mut http => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
            return;
        }
        why = activity.closed() => why,
        reason = activity.timed_out(&server.state.limits) => return tracing::debug!(reason, "a connection is closed"),
    };
    if close == Close::Room {
        let parts = http.into_parts();
        let read = activity.unanswered() || !parts.read_buf.is_empty();
        make_room(parts.io.into_inner().into_inner(), place, read).await;
    }
}

/// Answers one request when the answer before is out.
async fn answer(
    request: Request<Incoming>,
    client: Option<Client>,
    activity: Arc<Activity>,
    server: Arc<Server>,
) -> Result<Response<Sent>, Infallible> {
    activity.begin(request.version(), !request.body().is_end_stream()).await;
    let state = &server.state;
    let mut unanswered = Unanswered::new(&state.unanswered);
    let mut request = request.map(Body::new);
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(activity.clone());
    request.extensions_mut().insert(id);
    client.and_then(|client| request.extensions_mut().insert(client));
    let mut response = server.router.clone().oneshot(request).await?;
    unanswered.charge = response.extensions_mut().remove::<Arc<Charge>>();
    if state.draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // A whole answer is handed over at once; a stream ends by itself when the time is over.
    Ok(response.map(|body| Sent { body, unanswered: Some(unanswered), activity }))
}

/// An answer's body.
struct Sent {
    body: Body,
    unanswered: Option<Unanswered>,
    activity: Arc<Activity>,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some(unanswered) = self.unanswered.take() {
            self.activity.handed_over(unanswered);
        }
    }
}
