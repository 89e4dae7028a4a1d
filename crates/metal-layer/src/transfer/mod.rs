//! Copies between host and device: the contract of a transfer, the plain one in the calling thread, and the one on the transfer
//! queue. Each reports its end through a ticket.

pub(crate) mod blit;
mod bytes;
mod direction;
pub(crate) mod inline;

use crate::observe::stats::BlitStats;
use mlx_serving_device::{Buffer, DeviceError, Encoder, Patience, Point, Result, Status, Submission};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Writes the bytes of an upload; called once, with memory of the destination's length. An error is reported by the ticket.
pub type Fill = Box<dyn FnOnce(&mut [u8]) -> Result<(), String> + Send>;
/// Takes the bytes of a download; called once. An error is reported by the ticket.
pub type Sink = Box<dyn FnOnce(&[u8]) -> Result<(), String> + Send>;

/// Copies between host and device. The bytes of several buffers are one run of bytes to `fill` and `sink`, buffer after buffer.
pub trait Transfer: fmt::Debug + Send + Sync {
    /// Fills `to` once everything submitted before this call has completed. `fill` gets staging memory, or the destination itself
    /// where the host reaches it.
    fn scatter(&self, to: &[Buffer], fill: Fill) -> Result<Ticket>;
    /// Reads `from` once everything submitted before this call has completed.
    fn gather(&self, from: &[Buffer], sink: Sink) -> Result<Ticket>;
    /// Fills one buffer.
    fn upload(&self, to: &Buffer, fill: Fill) -> Result<Ticket> {
        self.scatter(std::slice::from_ref(to), fill)
    }
    /// Reads one buffer.
    fn download(&self, from: &Buffer, sink: Sink) -> Result<Ticket> {
        self.gather(std::slice::from_ref(from), sink)
    }
    /// Fills fresh memory when nothing more urgent is to be done, in the order of these calls: a model's weights. Nothing that
    /// was submitted may use `to` yet. Does not wait for room where the transfer is asynchronous.
    fn stream(&self, to: &Buffer, fill: Fill) -> Result<Ticket> {
        self.upload(to, fill)
    }
    /// The longest transfer, bytes; callers split longer ones.
    fn max_chunk(&self) -> u64;
    /// Reason for working as the baseline does, in an optimization.
    fn fallen_back(&self) -> Option<String> {
        None
    }
    /// Counters.
    fn stats(&self) -> BlitStats;
}

/// Outcome of a transfer.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// `None` while it is in flight.
    result: Mutex<Option<Result<()>>>,
    ended: Condvar,
    /// A copy that is no longer waited for and may still land.
    abandoned: Mutex<Option<Arc<dyn Submission>>>,
}

impl Outcome {
    pub(crate) fn set(&self, result: Result<()>) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.ended.notify_all();
    }

    /// Notes, before the result is set, that `copy` was not waited for any longer.
    pub(crate) fn abandon(&self, copy: Arc<dyn Submission>) {
        *self.abandoned.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy);
    }
}

/// Time that the host waits instead of the device ([`Ticket::order`]).
const HOST_LIMIT: Duration = Duration::from_secs(600);

/// A transfer in flight.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// Reached once the transfer has ended, however it ended: what the device waits for. Without one, and while the transfer is
    /// pending, the host waits.
    pub point: Option<Point>,
    outcome: Arc<Outcome>,
    submission: Option<Arc<dyn Submission>>,
}

impl Ticket {
    /// A transfer that has ended.
    pub(crate) fn done(result: Result<()>) -> Self {
        let outcome = Arc::new(Outcome::default());
        outcome.set(result);
        Self { point: None, outcome, submission: None }
    }

    /// A transfer whose end `outcome` will have.
    pub(crate) fn pending(point: Option<Point>, outcome: Arc<Outcome>) -> Self {
        Self { point, outcome, submission: None }
    }

    /// A transfer that ends with a submission.
    pub(crate) fn submitted(point: Point, submission: Arc<dyn Submission>) -> Self {
        let ticket = Self::done(Ok(()));
        Self { point: Some(point), submission: Some(submission), ..ticket }
    }

    /// State of the transfer. A result is good only once this says [`Status::Completed`].
    pub fn status(&self) -> Status {
        match &*self.outcome.result.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Status::Pending,
            Some(Err(error)) => Status::Failed(error.clone()),
            Some(Ok(())) => self.submission.as_ref().map_or(Status::Completed, |s| s.status()),
        }
    }

    /// Makes the ops that follow in `encoder` come after the transfer: the device waits, or the host where there is no point.
    /// The transfer's success is known later ([`Self::wait`]).
    pub fn order(&self, encoder: &mut dyn Encoder) -> Result<()> {
        match &self.point {
            Some(point) if point.reached() => Ok(()),
            Some(point) => encoder.wait(point.clone()),
            None => match self.wait(HOST_LIMIT) {
                Err(timeout @ DeviceError::Timeout { .. }) => Err(timeout),
                _ => Ok(()),
            },
        }
    }

    /// True while a copy that took too long may still land: its memory is not to be reused yet.
    pub fn may_still_land(&self) -> bool {
        let abandoned = self.outcome.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        abandoned.as_ref().is_some_and(|copy| copy.status() == Status::Pending)
    }

    /// Blocks until the transfer has ended, at most `limit`.
    pub fn wait(&self, limit: Duration) -> Result<()> {
        let mut patience = Patience::new(limit);
        let mut result = self.outcome.result.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = &*result {
                outcome.clone()?;
                // Others may ask meanwhile.
                drop(result);
                return self.submission.as_ref().map_or(Ok(()), |s| s.wait(limit));
            }
            let Some(slice) = patience.slice() else {
                return Err(DeviceError::Timeout {
                    value: self.point.as_ref().map_or(0, |p| p.value),
                    reached: self.point.as_ref().map_or(0, |p| p.timeline.value()),
                    waited: limit,
                });
            };
            result = self.outcome.ended.wait_timeout(result, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
