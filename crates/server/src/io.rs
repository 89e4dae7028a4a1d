//! A socket as HTTP sees it: it notes when bytes pass, keeps half-closed connections open while their answer is due, and says goodbye
//! so that the client can still read the answer.

use crate::conn::{Conn, Due};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, interval};

/// How often a client that has closed its half is looked for.
const LOOK: Duration = Duration::from_millis(250);
/// Looks before it is asked whether it still listens.
const ASK_AFTER: u32 = 5;
/// Looks before a body of which all has been read must have been taken.
const TAKEN_AFTER: u32 = 2;
/// What asks: a client that listens passes over it, one that has gone resets the connection.
const ASK: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Time and bytes that a client gets to end what it was sending when its answer has come already.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
pub(crate) const LINGER_BYTES: u64 = 16 << 20;

/// A connection's socket.
#[derive(Debug)]
pub(crate) struct Io {
    socket: TcpStream,
    /// Bytes that were read before HTTP looked.
    first: Vec<u8>,
    conn: Arc<Conn>,
    half: Option<Half>,
    goodbye: Option<Goodbye>,
}

/// The client has closed its half, or has gone: only an attempt to write can tell.
#[derive(Debug)]
struct Half {
    look: Interval,
    looks: u32,
}

#[derive(Debug)]
struct Goodbye {
    until: Pin<Box<tokio::time::Sleep>>,
    bytes: u64,
}

impl Io {
    pub(crate) fn new(socket: TcpStream, first: Vec<u8>, conn: Arc<Conn>) -> Self {
        Self { socket, first, conn, half: None, goodbye: None }
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(bytes)) => self.conn.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.conn.blocked(),
        }
    }

    /// Pending while an answer is due, unless the client has gone altogether; then the end of what it sent.
    fn poll_half(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let half = self.half.get_or_insert_with(|| Half { look: interval(LOOK), looks: 0 });
        loop {
            match self.conn.due(cx) {
                Due::Answer => {}
                Due::Body if half.looks < TAKEN_AFTER => {}
                Due::Body | Due::Nothing => return Poll::Ready(Ok(())),
            }
            ready!(half.look.poll_tick(cx));
            half.looks += 1;
            if let Some(error) = self.socket.take_error()? {
                return Poll::Ready(Err(error));
            }
            if half.looks == ASK_AFTER && self.conn.takes_interim() && self.socket.try_write(ASK)? != ASK.len() {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let n = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first[..n]);
            this.first.drain(..n);
            return Poll::Ready(Ok(()));
        }
        if this.half.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
            if buf.filled().len() > before {
                this.conn.read();
                return Poll::Ready(Ok(()));
            }
        }
        this.poll_half(cx)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.note(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.note(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.conn.flushed();
        Poll::Ready(Ok(()))
    }

    /// Ends the answer, then takes what the client is still sending: closing on unread bytes would reset the connection, and with it
    /// the answer.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.goodbye.is_none() {
            ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
        }
        if this.half.is_some() {
            return Poll::Ready(Ok(()));
        }
        let goodbye = this.goodbye.get_or_insert_with(|| Goodbye {
            until: Box::pin(tokio::time::sleep_until(Instant::now() + LINGER)),
            bytes: 0,
        });
        let mut waste = [0; 16 << 10];
        while goodbye.until.as_mut().poll(cx).is_pending() && goodbye.bytes < LINGER_BYTES {
            let mut waste = ReadBuf::new(&mut waste);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut waste))?;
            if waste.filled().is_empty() {
                break;
            }
            goodbye.bytes += waste.filled().len() as u64;
        }
        Poll::Ready(Ok(()))
    }
}
