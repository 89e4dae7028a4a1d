//! A socket as HTTP sees it: it notes when bytes pass, keeps half-closed connections open while their answer is due, and lingers at the
//! end so that the client can still read the answer.

use super::activity::{Activity, Due};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, interval};

/// Time between two looks for a client that has closed its half.
const LOOK: Duration = Duration::from_millis(250);
/// Looks before it is asked whether it still listens.
const ASK_AFTER: u32 = 5;
/// Looks before a body of which all has been read must have been taken.
const TAKEN_AFTER: u32 = 2;
/// The question: a client that listens passes over it, one that has gone resets the connection.
const ASK: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Time and bytes that a client gets to end what it was sending when its answer has come already.
pub(super) const LINGER: Duration = Duration::from_secs(2);
pub(super) const LINGER_BYTES: u64 = 16 << 20;

/// A connection's socket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    /// Bytes that were read before HTTP looked.
    first: Vec<u8>,
    activity: Arc<Activity>,
    half: Option<Half>,
    linger: Option<Linger>,
}

/// The client has closed its half, or has gone: only an attempt to write can tell.
#[derive(Debug)]
struct Half {
    look: Interval,
    looks: u32,
}

#[derive(Debug)]
struct Linger {
    until: Pin<Box<tokio::time::Sleep>>,
    bytes: u64,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, first: Vec<u8>, activity: Arc<Activity>) -> Self {
        Self { stream, first, activity, half: None, linger: None }
    }

    /// The system's socket.
    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }

    /// Notes what became of a write.
    fn note(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(bytes)) => self.activity.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.activity.blocked(),
        }
    }

    /// Pending while an answer is due, unless the client has gone altogether; then the end of what it sent.
    fn poll_half(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let half = self.half.get_or_insert_with(|| Half { look: interval(LOOK), looks: 0 });
        loop {
            match self.activity.due(cx) {
                Due::Answer => {}
                Due::Body if half.looks < TAKEN_AFTER => {}
                Due::Body | Due::Nothing => return Poll::Ready(Ok(())),
            }
            ready!(half.look.poll_tick(cx));
            half.looks += 1;
            if let Some(error) = self.stream.take_error()? {
                return Poll::Ready(Err(error));
            }
            if half.looks == ASK_AFTER && self.activity.takes_interim() && self.stream.try_write(ASK)? != ASK.len() {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let n = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first[..n]);
            this.first.drain(..n);
            if this.first.is_empty() {
                // The connection may last long.
                this.first = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        if this.half.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            if buf.filled().len() > before {
                this.activity.read();
                return Poll::Ready(Ok(()));
            }
        }
        this.poll_half(cx)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.activity.flushed();
        Poll::Ready(Ok(()))
    }

    /// Ends the answer, then takes what the client is still sending: closing on unread bytes would reset the connection, and with it
    /// the answer.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        if this.half.is_some() {
            return Poll::Ready(Ok(()));
        }
        let linger = this.linger.get_or_insert_with(|| Linger {
            until: Box::pin(tokio::time::sleep_until(Instant::now() + LINGER)),
            bytes: 0,
        });
        let mut waste = [0; 16 << 10];
        while linger.until.as_mut().poll(cx).is_pending() && linger.bytes < LINGER_BYTES {
            let mut waste = ReadBuf::new(&mut waste);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut waste))?;
            if waste.filled().is_empty() {
                break;
            }
            linger.bytes += waste.filled().len() as u64;
        }
        Poll::Ready(Ok(()))
    }
}
