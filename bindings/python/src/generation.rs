//! One answer: a thread waits for its tokens, or an event loop takes them when its mailbox says so.

use crate::convert::to_python;
use crate::errors::{checked, raised};
use crate::local::Local;
use crate::mailbox::Mailbox;
use crate::wait::in_slices;
use mlx_serving_bindings as bindings;
use mlx_serving_bindings::{Error, Next, Summary, Taken};
use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// A token of an answer.
#[pyclass(frozen, get_all, module = "mlx_serving")]
pub(crate) struct Token {
    text: String,
    id: Option<u32>,
    logprob: Option<f32>,
    top_logprobs: Vec<(u32, f32)>,
}

/// An answer while it is generated.
#[pyclass(frozen, module = "krserve_native._native")]
pub(crate) struct Generation {
    answer: Mutex<Answer>,
    canceled: AtomicBool,
    engine: Arc<Local<bindings::Engine>>,
}

struct Answer {
    generation: bindings::Generation,
    /// Error that came behind tokens which were to be given first.
    failed: Option<Error>,
}

impl From<bindings::Token> for Token {
    fn from(token: bindings::Token) -> Self {
        let bindings::Token { text, id, logprob, top } = token;
        Self { text, id, logprob, top_logprobs: top }
    }
}

#[pymethods]
impl Token {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str, &'static str) {
        ("text", "id", "logprob", "top_logprobs")
    }

    fn __repr__(&self) -> String {
        let id = self.id.map_or("None".to_owned(), |id| id.to_string());
        let logprob = self.logprob.map_or(String::new(), |logprob| format!(", logprob={logprob}"));
        let top = if self.top_logprobs.is_empty() {
            String::new()
        } else {
            let pairs: Vec<_> = self.top_logprobs.iter().map(|(id, logprob)| format!("({id}, {logprob})")).collect();
            format!(", top_logprobs=[{}]", pairs.join(", "))
        };
        format!("Token(text={:?}, id={id}{logprob}{top})", self.text)
    }
}

impl Answer {
    /// Takes the tokens that have come, behind the first one if it was `waited` for.
    fn take(&mut self, waited: Option<bindings::Token>) -> Result<Taken, Error> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let Some(first) = waited else { return self.generation.take() };
        let mut tokens = vec![first];
        match self.generation.take() {
            Ok(Taken::Tokens(more)) => tokens.extend(more),
            Ok(Taken::Pending | Taken::End) => {}
            Err(error) => self.failed = Some(error),
        }
        Ok(Taken::Tokens(tokens))
    }

    /// Waits for a token, at most `limit`; `Pending` if none has come.
    fn wait(&mut self, limit: Duration) -> Result<Taken, Error> {
        if self.failed.is_some() {
            return self.take(None);
        }
        match self.generation.next_within(limit)? {
            Next::Token(token) => self.take(Some(token)),
            Next::Late => Ok(Taken::Pending),
            Next::End => Ok(Taken::End),
        }
    }
}

impl Generation {
    pub(crate) fn new(generation: bindings::Generation, engine: Arc<Local<bindings::Engine>>) -> Self {
        let answer = Mutex::new(Answer { generation, failed: None });
        Self { answer, canceled: AtomicBool::new(false), engine }
    }

    fn lock(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the answer. Who cancels meanwhile does not wait, and leaves it to be done here.
    fn with<T>(&self, work: impl FnOnce(&mut Answer) -> T) -> T {
        let worked = work(&mut self.lock());
        if self.canceled.load(Ordering::SeqCst) {
            self.lock().generation.cancel();
        }
        worked
    }

    /// Takes or waits, in a call that a panic does not leave; a canceled answer is at its end.
    fn call(&self, work: impl FnOnce(&mut Answer) -> Result<Taken, Error>) -> Result<Taken, Error> {
        let taken = self.engine.get_anywhere().guard(|| {
            self.with(|answer| if self.canceled.load(Ordering::SeqCst) { Ok(Taken::End) } else { work(answer) })
        })?;
        Ok(if self.canceled.load(Ordering::SeqCst) { Taken::End } else { taken })
    }
}

fn tokens(taken: Taken) -> Option<Vec<Token>> {
    match taken {
        Taken::Tokens(tokens) => Some(tokens.into_iter().map(Token::from).collect()),
        Taken::Pending => None,
        Taken::End => Some(Vec::new()),
    }
}

#[pymethods]
impl Generation {
    /// Waits for tokens; none at the end.
    fn wait(&self, py: Python<'_>) -> PyResult<Vec<Token>> {
        let taken = in_slices(py, None, |slice| match self.call(|answer| answer.wait(slice)) {
            Ok(Taken::Pending) => None,
            outcome => Some(outcome),
        })?;
        checked(py, taken.unwrap_or(Ok(Taken::End))).map(|taken| tokens(taken).unwrap_or_default())
    }

    /// Takes the tokens that have come: an empty list at the end, None if there are none yet.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Vec<Token>>> {
        // Another thread may be waiting here, for no longer than a slice.
        let taken = py.detach(|| self.call(|answer| answer.take(None)));
        checked(py, taken).map(tokens)
    }

    /// Has another loop told of what comes.
    fn deliver_to(&self, py: Python<'_>, mailbox: &Mailbox) -> PyResult<()> {
        let mailbox = mailbox.shared()?;
        py.detach(|| self.with(|answer| answer.generation.deliver_to(mailbox)));
        Ok(())
    }

    /// Cancels the rest. Whoever waits for it on another thread finds the end.
    fn cancel(&self) {
        self.canceled.store(true, Ordering::SeqCst);
        match self.answer.try_lock() {
            Ok(mut answer) => answer.generation.cancel(),
            Err(TryLockError::Poisoned(answer)) => answer.into_inner().generation.cancel(),
            // Its holder looks at the flag when it lets go, which the next token or the end of a slice makes it do.
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// Finish reason, usage and times, once the end has come by itself.
    fn summary<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let summary = py.detach(|| self.with(|answer| answer.generation.summary().cloned()));
        summary.map(|summary| summary_object(py, &summary)).transpose()
    }

    /// Seconds until it fails for its timeout, if it has one.
    fn remaining(&self, py: Python<'_>) -> Option<f64> {
        let deadline = py.detach(|| self.with(|answer| answer.generation.deadline()))?;
        Some(deadline.saturating_duration_since(Instant::now()).as_secs_f64())
    }
}

/// A whole answer: its text, ids, tokens and summary.
pub(crate) type WholeAnswer<'py> = (String, Vec<u32>, Vec<Token>, Bound<'py, PyAny>);

/// Waits for a whole answer.
pub(crate) fn drain<'py>(
    py: Python<'py>,
    engine: &bindings::Engine,
    mut generation: bindings::Generation,
) -> PyResult<WholeAnswer<'py>> {
    let (mut text, mut ids, mut tokens) = (String::new(), Vec::new(), Vec::new());
    let ended = in_slices(py, None, |slice| {
        let end = Instant::now() + slice;
        let outcome = engine.guard(|| {
            loop {
                match generation.next_within(end.saturating_duration_since(Instant::now()))? {
                    Next::Token(token) => {
                        text.push_str(&token.text);
                        ids.extend(token.id);
                        if token.logprob.is_some() {
                            tokens.push(Token::from(token));
                        }
                    }
                    Next::Late => return Ok(false),
                    Next::End => return Ok(true),
                }
            }
        });
        match outcome {
            Ok(false) => None,
            Ok(true) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    })?;
    checked(py, ended.unwrap_or(Ok(())))?;
    match generation.summary() {
        Some(summary) => Ok((text, ids, tokens, summary_object(py, summary)?)),
        None => {
            Err(raised(py, Error::new(bindings::Code::Internal, "the answer ended without a reason; please report it")))
        }
    }
}

fn summary_object<'py>(py: Python<'py>, summary: &Summary) -> PyResult<Bound<'py, PyAny>> {
    let value = serde_json::to_value(summary).map_err(|error| {
        raised(py, Error::new(bindings::Code::Internal, format!("a summary that is no object: {error}")))
    })?;
    to_python(py, &value)
}
