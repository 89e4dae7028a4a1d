use crate::error::EngineError;
use crate::events::Receiver;
use crate::request::Event;
use crate::shared::EngineStatus;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The events of one request. Dropping it cancels the request.
#[derive(Debug)]
pub struct Stream {
    receiver: Receiver,
    /// The last event has come.
    ended: bool,
    status: Arc<EngineStatus>,
}

impl Stream {
    /// The stream of a request that was just queued.
    pub(crate) fn new(receiver: Receiver, status: Arc<EngineStatus>) -> Self {
        Self { receiver, ended: false, status }
    }

    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The same for whoever polls. The waker is woken once a step, however many streams it waits for: all events of the step are
    /// there then.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.receiver.poll(context).map(|event| self.follow(event))
    }

    /// The next event, blocking the thread; `None` after the last. Not for asynchronous callers.
    pub fn next_blocking(&mut self) -> Option<Event> {
        match self.receiver.next_until(None) {
            Poll::Ready(event) => self.follow(event),
            Poll::Pending => None,
        }
    }

    /// The next event if it comes within `limit`, `Err` otherwise. Blocks the thread; not for asynchronous callers.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Event>, Late> {
        match self.receiver.next_until(Instant::now().checked_add(limit)) {
            Poll::Ready(event) => Ok(self.follow(event)),
            Poll::Pending => Err(Late),
        }
    }

    /// Adds the last event where the engine ended without sending one.
    fn follow(&mut self, event: Option<Event>) -> Option<Event> {
        match event {
            Some(event) => {
                self.ended = event.is_last();
                Some(event)
            }
            None if self.ended => None,
            None => {
                self.ended = true;
                let reason = self.status.reason().unwrap_or_else(|| "its thread has ended".into());
                Some(Event::Failed(EngineError::Stopped(reason)))
            }
        }
    }
}

/// No event came in time; the request goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late;
