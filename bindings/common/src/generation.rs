//! One answer while it is generated, read by polling or by waiting.

use crate::error::{Code, Error};
use crate::fork::Own;
use crate::mailbox::Mailbox;
use futures::channel::oneshot;
use futures::{FutureExt as _, StreamExt as _};
use mlx_serving_engine::{EngineError, Event, Finish};
use mlx_serving_runtime::Events;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Reader of an answer.
#[derive(Debug, Clone)]
pub enum Reader {
    /// A thread that waits in [`Generation::next_within`].
    Blocking,
    /// An event loop, which its mailbox tells when to [`Generation::take`].
    Mailbox(Arc<Mailbox>),
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Text that became final with it; empty while a character or a possible stop string is incomplete.
    pub text: String,
    /// Token id; none for text that was held back until the end.
    pub id: Option<u32>,
    /// Log-probability, if it was asked for.
    pub logprob: Option<f32>,
    /// Most likely tokens at its place with their log-probabilities, most likely first.
    pub top: Vec<(u32, f32)>,
}

/// Outcome of a look at an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// Tokens that have come, one at least.
    Tokens(Vec<Token>),
    /// No token yet; the mailbox will tell.
    Pending,
    /// End of the answer.
    End,
}

/// Outcome of a wait for the next piece.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// The next piece.
    Token(Token),
    /// No piece within the limit; the answer goes on.
    Late,
    /// End of the answer.
    End,
}

/// The end of an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// `stop` or `length`.
    pub finish_reason: &'static str,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were found in the prefix cache.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
    /// Seconds from arrival to the first step that computed the prompt.
    pub queue_s: f64,
    /// Seconds from there to the first token.
    pub prefill_s: f64,
    /// Seconds from the first token to the last.
    pub decode_s: f64,
}

impl From<&Finish> for Summary {
    fn from(finish: &Finish) -> Self {
        let usage = finish.usage;
        Self {
            finish_reason: finish.reason.as_str(),
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            completion_tokens: usage.completion_tokens,
            queue_s: usage.queue_s,
            prefill_s: usage.prefill_s,
            decode_s: usage.decode_s,
        }
    }
}

/// An answer while it is generated. Dropping it cancels the rest.
#[derive(Debug)]
pub struct Generation(Own<Answer>);

struct Answer {
    stage: Stage,
    summary: Option<Summary>,
    /// The time that it was given, and its end.
    deadline: Option<(Duration, Instant)>,
    /// Waker of the event loop that reads it, if one does.
    mailbox: Option<Waker>,
    /// Set once the engine is disposed of.
    disposed: Arc<AtomicBool>,
}

/// An answer's events, once its prompt is encoded.
pub(crate) type Encoding = oneshot::Receiver<Result<Events, Error>>;

pub(crate) enum Stage {
    /// Encoding of its prompt.
    Encoding(Encoding),
    /// Computation.
    Open(Events),
    /// Failure after the tokens that were taken last.
    Failed(Error),
    /// End.
    Ended,
}

impl Generation {
    pub(crate) fn new(stage: Stage, reader: Reader, timeout: Option<Duration>, disposed: Arc<AtomicBool>) -> Self {
        let mailbox = match reader {
            Reader::Blocking => None,
            Reader::Mailbox(mailbox) => Some(mailbox.into()),
        };
        let deadline = timeout.and_then(|timeout| Some((timeout, Instant::now().checked_add(timeout)?)));
        Self(Own::new(Answer { stage, summary: None, deadline, mailbox, disposed }))
    }

    /// Takes what has come since the last look. Does not block.
    ///
    /// # Errors
    /// The answer failed, or its time is over; nothing comes after that.
    pub fn take(&mut self) -> Result<Taken, Error> {
        let answer = self.0.get_mut()?;
        let waker = answer.mailbox.clone().unwrap_or_else(|| Waker::noop().clone());
        let mut context = Context::from_waker(&waker);
        let mut tokens = Vec::new();
        loop {
            match answer.poll(&mut context) {
                Poll::Ready(Some(Ok(token))) => tokens.push(token),
                Poll::Ready(Some(Err(error))) if tokens.is_empty() => return Err(error),
                Poll::Ready(Some(Err(error))) => {
                    answer.stage = Stage::Failed(error);
                    return Ok(Taken::Tokens(tokens));
                }
                Poll::Ready(None) if tokens.is_empty() => return Ok(Taken::End),
                Poll::Pending if tokens.is_empty() => return answer.check_deadline().map(|()| Taken::Pending),
                Poll::Ready(None) | Poll::Pending => return Ok(Taken::Tokens(tokens)),
            }
        }
    }

    /// Has another event loop's mailbox told of what comes from the next [`Self::take`] on.
    pub fn deliver_to(&mut self, mailbox: Arc<Mailbox>) {
        if let Ok(answer) = self.0.get_mut() {
            answer.mailbox = Some(mailbox.into());
        }
    }

    /// Waits for the next piece, at most for so long, so that the caller can look about in between. Blocks the thread.
    ///
    /// # Errors
    /// The answer failed, or its time is over; nothing comes after that.
    pub fn next_within(&mut self, limit: Duration) -> Result<Next, Error> {
        let answer = self.0.get_mut()?;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let end = Instant::now().checked_add(limit);
        loop {
            match answer.poll(&mut context) {
                Poll::Ready(Some(token)) => return token.map(Next::Token),
                Poll::Ready(None) => return Ok(Next::End),
                Poll::Pending => answer.check_deadline()?,
            }
            match end
                .into_iter()
                .chain(answer.deadline.map(|(_, deadline)| deadline))
                .min()
                .map(|at| at.saturating_duration_since(Instant::now()))
            {
                None => thread::park(),
                Some(left) if left.is_zero() && end.is_some_and(|end| end <= Instant::now()) => return Ok(Next::Late),
                Some(left) => thread::park_timeout(left),
            }
        }
    }

    /// Cancels the rest; what was not taken is dropped. The engine stops computing it within its next steps.
    pub fn cancel(&mut self) {
        if let Ok(answer) = self.0.get_mut() {
            answer.stage = Stage::Ended;
        }
    }

    /// The end, once it has come by itself.
    pub fn summary(&self) -> Option<&Summary> {
        self.0.get().ok()?.summary.as_ref()
    }

    /// Time at which the answer fails if it has not ended.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.get().ok()?.deadline.map(|(_, deadline)| deadline)
    }
}

impl Answer {
    /// Ends an answer that waits for its engine beyond its time. What has come may be read at leisure.
    fn check_deadline(&mut self) -> Result<(), Error> {
        match self.deadline {
            Some((timeout, deadline)) if deadline <= Instant::now() => {
                self.stage = Stage::Ended;
                let ms = timeout.as_millis();
                let message = format!("the answer was not complete within its timeout of {ms} ms, and was canceled");
                Err(Error::new(Code::Timeout, message))
            }
            _ => Ok(()),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Token, Error>>> {
        loop {
            match &mut self.stage {
                Stage::Ended => return Poll::Ready(None),
                Stage::Failed(error) => {
                    let error = error.clone();
                    self.stage = Stage::Ended;
                    return Poll::Ready(Some(Err(error)));
                }
                Stage::Encoding(encoding) => match encoding.poll_unpin(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(Ok(events))) => self.stage = Stage::Open(events),
                    Poll::Ready(Ok(Err(_))) if self.disposed.load(Ordering::Acquire) => {
                        self.stage = Stage::Failed(Error::disposed());
                    }
                    Poll::Ready(Ok(Err(error))) => self.stage = Stage::Failed(error),
                    // Whoever encodes prompts is gone.
                    Poll::Ready(Err(oneshot::Canceled)) => self.stage = Stage::Failed(Error::disposed()),
                },
                Stage::Open(events) => match events.poll_next_unpin(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Event::Prompt(_) | Event::Embedding(_))) => {}
                    Poll::Ready(Some(Event::Token(event))) => {
                        let text = event.text();
                        let (logprob, top) = event.logprobs.map_or((None, Vec::new()), |l| (Some(l.chosen), l.top));
                        return Poll::Ready(Some(Ok(Token { text, id: Some(event.id), logprob, top })));
                    }
                    Poll::Ready(Some(Event::Finished(finish))) => {
                        self.stage = Stage::Ended;
                        self.summary = Some(Summary::from(&finish));
                        let text = finish.text();
                        if !text.is_empty() {
                            let held = Token { text, id: None, logprob: None, top: Vec::new() };
                            return Poll::Ready(Some(Ok(held)));
                        }
                    }
                    Poll::Ready(Some(Event::Failed(error))) => self.stage = Stage::Failed(self.failure(error)),
                    Poll::Ready(None) => self.stage = Stage::Ended,
                },
            }
        }
    }

    fn failure(&self, error: EngineError) -> Error {
        match error {
            EngineError::Stopped(_) if self.disposed.load(Ordering::Acquire) => Error::disposed(),
            error => error.into(),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Encoding(_) => "encoding",
            Stage::Open(_) => "open",
            Stage::Failed(_) => "failed",
            Stage::Ended => "ended",
        };
        f.debug_struct("Answer").field("stage", &stage).field("summary", &self.summary).finish_non_exhaustive()
    }
}

/// Wakes a thread that waits for an event.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
