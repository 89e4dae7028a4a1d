//! Wakes an event loop by a descriptor that the loop watches, so that the engine's thread never waits for the interpreter.

use crate::local::Local;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Waker of one event loop.
#[pyclass(frozen, module = "krserve_native._native")]
pub(crate) struct Mailbox {
    mailbox: Local<Arc<mlx_serving_bindings::Mailbox>>,
    pair: Arc<Pair>,
}

/// Both ends of a socket pair. They live as long as anyone who may write: a write never finds the other end closed.
struct Pair {
    reader: UnixStream,
    writer: UnixStream,
}

impl Mailbox {
    pub(crate) fn shared(&self) -> PyResult<Arc<mlx_serving_bindings::Mailbox>> {
        Ok(self.mailbox.get()?.clone())
    }
}

#[pymethods]
impl Mailbox {
    #[new]
    fn new() -> PyResult<Self> {
        let (reader, writer) = UnixStream::pair().map_err(|error| {
            PyOSError::new_err(format!(
                "no socket pair to wake the event loop with: {error}; raise the limit on open files"
            ))
        })?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let pair = Arc::new(Pair { reader, writer });
        let ends = pair.clone();
        // At most one byte is unread, for which there is always room.
        let mailbox = mlx_serving_bindings::Mailbox::new(move || drop((&ends.writer).write(&[1])));
        Ok(Self { mailbox: Local::new(mailbox), pair })
    }

    /// Descriptor that the loop watches for reading.
    fn fileno(&self) -> i32 {
        self.pair.reader.as_raw_fd()
    }

    /// Takes the notification: what comes from now on notifies again.
    fn rearm(&self) -> PyResult<()> {
        let mailbox = self.mailbox.get()?;
        match (&self.pair.reader).read(&mut [0; 8]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
            _ => mailbox.rearm(),
        }
        Ok(())
    }

    /// Notifications so far.
    #[getter]
    fn wakes(&self) -> PyResult<u64> {
        Ok(self.mailbox.get()?.wakes())
    }
}
