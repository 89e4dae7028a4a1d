//! One connection: requests come from its socket, answers go back, within the limits.

use crate::conn::{Conn, Flight};
use crate::error::ApiError;
use crate::io::Io;
use crate::listen::Shared;
use crate::register::Place;
use crate::unread::Charge;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Request, Response, header};
use axum::response::IntoResponse;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tower::ServiceExt;

/// Bytes of a head, and of an answer that waits for the client, at most.
const BUFFER: usize = 64 << 10;

/// Serves a connection whose first bytes have been read.
pub(crate) async fn serve(socket: TcpStream, first: Vec<u8>, place: Place, shared: Arc<Shared>) {
    let conn = place.conn.clone();
    let service = {
        let (conn, shared) = (conn.clone(), shared.clone());
        service_fn(move |request| answer(request, conn.clone(), shared.clone()))
    };
    let io = TokioIo::new(Io::new(socket, first, conn.clone()));
    let mut http = pin!(http1::Builder::new().max_buf_size(BUFFER).serve_connection(io, service));
    let mut look = tokio::time::interval(shared.state.limits.tick());
    loop {
        tokio::select! {
            ended = &mut http => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = conn.closed() => return,
            _ = look.tick() => if let Some(reason) = conn.overdue(&shared.state.limits) {
                tracing::debug!(reason, "a connection is closed");
                return;
            }
        }
    }
}

/// Answers one request when the answer before is out.
async fn answer(
    request: Request<Incoming>,
    conn: Arc<Conn>,
    shared: Arc<Shared>,
) -> Result<Response<Sent>, Infallible> {
    conn.begin(request.version(), !request.body().is_end_stream()).await;
    let state = &shared.state;
    let mut flight = Flight::new(&state.flights);
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(conn.clone());
    let mut cut = state.cut.subscribe();
    let mut response = tokio::select! {
        biased;
        answered = shared.router.clone().oneshot(request) => answered?,
        _ = cut.wait_for(|cut| *cut) => ApiError::cut().into_response(),
    };
    flight.charge = response.extensions_mut().remove::<Arc<Charge>>();
    if state.draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // A whole answer is handed over at once; only a stream can be told that the time is over.
    let events = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    let cut = async move {
        // The sender lives as long as the server.
        let _ = cut.wait_for(|cut| *cut).await;
    };
    let cut = events.then(|| cut.boxed());
    Ok(response.map(|body| Sent { body, cut, flight: Some(flight), conn }))
}

/// An answer's body. A stream of events ends with an error when the server's time is over.
pub(crate) struct Sent {
    body: Body,
    cut: Option<BoxFuture<'static, ()>>,
    flight: Option<Flight>,
    conn: Arc<Conn>,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.cut.as_mut().is_some_and(|cut| cut.poll_unpin(cx).is_ready()) {
            self.cut = None;
            // Dropping the body cancels what it waits for.
            self.body = Body::empty();
            let last = format!("data: {}\n\ndata: [DONE]\n\n", ApiError::cut().to_json());
            return Poll::Ready(Some(Ok(Frame::data(last.into()))));
        }
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
        if let Some(flight) = self.flight.take() {
            self.conn.leave(flight);
        }
    }
}
