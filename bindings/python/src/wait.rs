//! Waiting without the interpreter, in slices between which signals are looked after.

use mlx_serving_bindings::panic_message;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two looks at signals.
pub(crate) const SLICE: Duration = Duration::from_millis(50);

/// Runs `step`, which waits no longer than it is told, until it gives something; `None` once `limit` is over. A signal's exception
/// ends it, and so does a panic's.
pub(crate) fn in_slices<T: Send>(
    py: Python<'_>,
    limit: Option<Duration>,
    mut step: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<Option<T>> {
    let end = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        match py.detach(|| catch_unwind(AssertUnwindSafe(|| step(slice)))) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(panic) => return Err(PyRuntimeError::new_err(panic_message(panic.as_ref()))),
        }
        py.check_signals()?;
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
    }
}

/// Report of a thread at long work: messages, then its outcome.
enum Told<M, T> {
    Message(M),
    Ended(T),
}

/// Sends messages from a thread at long work to whoever waits for it, and waits until each is taken.
pub(crate) struct Teller<M, T>(SyncSender<Told<M, T>>);

impl<M, T> Teller<M, T> {
    pub(crate) fn tell(&self, message: M) {
        // Nobody waits any more; the outcome shows that too.
        let _ = self.0.send(Told::Message(message));
    }
}

/// Runs what may take long on a thread of its own, so that a signal, or an exception of `each`, ends the wait for it. The outcome that nobody
/// waits for any more is given to `abandoned`, on that thread.
pub(crate) fn on_thread<M: Send + 'static, T: Send + 'static>(
    py: Python<'_>,
    name: &str,
    mut each: impl FnMut(M) -> PyResult<()>,
    work: impl FnOnce(Teller<M, T>) -> T + Send + 'static,
    abandoned: impl FnOnce(T) + Send + 'static,
) -> PyResult<T> {
    // A rendezvous channel: a message is either taken or returned to its sender as an error.
    let (teller, told) = sync_channel(0);
    let run = move || {
        let outcome = work(Teller(teller.clone()));
        if let Err(std::sync::mpsc::SendError(Told::Ended(outcome))) = teller.send(Told::Ended(outcome)) {
            abandoned(outcome);
        }
    };
    let failed = |reason: String| PyRuntimeError::new_err(format!("no thread to {name}: {reason}"));
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| failed(error.to_string()))?;
    let told = Mutex::new(told);
    loop {
        let next = in_slices(py, None, |slice| {
            match told.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(slice) {
                Err(RecvTimeoutError::Timeout) => None,
                other => Some(other.ok()),
            }
        })?;
        match next.flatten() {
            Some(Told::Message(message)) => each(message)?,
            Some(Told::Ended(outcome)) => return Ok(outcome),
            None => return Err(failed("it ended without an outcome".into())),
        }
    }
}
