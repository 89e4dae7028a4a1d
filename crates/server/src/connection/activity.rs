//! The activity of a connection, and the time since when it lasts.

use crate::admission::Charge;
use crate::limits::Limits;
use axum::http::Version;
use futures::task::AtomicWaker;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes that a client that is waited for must take in the time that a write may last, unless fewer are left.
const PROGRESS: usize = 64 << 10;
/// Time without a byte after which a request that is not complete counts as idle.
const MOVES: Duration = Duration::from_secs(1);

/// Counts a request from its head until the last byte of its answer is out.
#[derive(Debug)]
pub(crate) struct Unanswered {
    live: Arc<AtomicUsize>,
    /// The bytes of its answer.
    pub charge: Option<Arc<Charge>>,
}

impl Unanswered {
    pub(crate) fn new(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::AcqRel);
        Self { live: live.clone(), charge: None }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing of a request has come.
    Idle,
    /// Part of a head has.
    Head,
    /// The head has, and not all of the body.
    Body,
    /// All has come; the answer is computed or sent.
    Answer,
}

/// The debt of a connection to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A request is complete and its answer is not out.
    Answer,
    /// A request's body has not been taken.
    Body,
    Nothing,
}

/// Reason for which a connection is to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// It is idle, and others need its place.
    Room,
    /// The server ends.
    End,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// Time at which the phase began; for a body, at which its last piece came.
    since: Instant,
    /// Time since which writes wait for the client, and the bytes that it took since.
    blocked: Option<(Instant, usize)>,
    /// No request has come yet.
    fresh: bool,
    /// A byte of the answer has been written.
    begun: bool,
    /// The client knows of interim answers.
    interim: bool,
    /// An answer that has been handed over completely and is not out.
    handed_over: Option<Unanswered>,
    closing: Option<Close>,
}

/// One connection, seen by the socket, by HTTP and by the table of connections.
#[derive(Debug)]
pub(crate) struct Activity {
    inner: Mutex<Inner>,
    close: Notify,
    /// An answer is out.
    out: Notify,
    /// The task that waits for an answer to be out before it reads on.
    reader: AtomicWaker,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        let inner = Inner {
            phase: Phase::Idle,
            since: Instant::now(),
            blocked: None,
            fresh: true,
            begun: false,
            interim: false,
            handed_over: None,
            closing: None,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            close: Notify::new(),
            out: Notify::new(),
            reader: AtomicWaker::new(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes have come.
    pub(crate) fn read(&self) {
        let inner = &mut *self.inner();
        match inner.phase {
            Phase::Idle => (inner.phase, inner.since) = (Phase::Head, Instant::now()),
            Phase::Body => inner.since = Instant::now(),
            Phase::Head | Phase::Answer => {}
        }
    }

    /// The client took so many bytes.
    pub(crate) fn wrote(&self, bytes: usize) {
        let inner = &mut *self.inner();
        inner.begun |= bytes > 0;
        inner.blocked =
            inner.blocked.map(|(since, taken)| (since, taken + bytes)).filter(|(_, taken)| *taken < PROGRESS);
    }

    /// The client has no room for a byte.
    pub(crate) fn blocked(&self) {
        self.inner().blocked.get_or_insert_with(|| (Instant::now(), 0));
    }

    /// A head has come. Waits until the answer before is out: a connection has one at a time.
    pub(crate) async fn begin(&self, version: Version, body: bool) {
        loop {
            let out = self.out.notified();
            {
                let inner = &mut *self.inner();
                if !matches!(inner.phase, Phase::Body | Phase::Answer) {
                    inner.phase = if body { Phase::Body } else { Phase::Answer };
                    inner.since = Instant::now();
                    (inner.fresh, inner.begun, inner.interim) = (false, false, version == Version::HTTP_11);
                    return;
                }
            }
            out.await;
        }
    }

    /// The body has come.
    pub(crate) fn body_read(&self) {
        let inner = &mut *self.inner();
        (inner.phase, inner.since, inner.begun) = (Phase::Answer, Instant::now(), false);
    }

    /// All of the answer has been handed over; it is out with the next flush.
    pub(crate) fn handed_over(&self, unanswered: Unanswered) {
        self.inner().handed_over = Some(unanswered);
    }

    /// Nothing waits to be written.
    pub(crate) fn flushed(&self) {
        let inner = &mut *self.inner();
        inner.blocked = None;
        if inner.handed_over.take().is_some() {
            self.idle_again(inner);
        }
    }

    /// A probe's answer is out.
    pub(crate) fn answered(&self) {
        self.idle_again(&mut self.inner());
    }

    fn idle_again(&self, inner: &mut Inner) {
        (inner.phase, inner.since, inner.blocked) = (Phase::Idle, Instant::now(), None);
        self.out.notify_waiters();
        self.reader.wake();
    }

    /// The connection has ended, whatever it was doing.
    pub(crate) fn ended(&self) {
        self.inner().handed_over = None;
    }

    /// Something that the client may wait for. The reader is woken when an answer is out.
    pub(crate) fn due(&self, cx: &Context<'_>) -> Due {
        self.reader.register(cx.waker());
        match self.inner().phase {
            Phase::Answer => Due::Answer,
            Phase::Body => Due::Body,
            Phase::Idle | Phase::Head => Due::Nothing,
        }
    }

    /// An interim answer may be sent.
    pub(crate) fn takes_interim(&self) -> bool {
        let inner = self.inner();
        inner.interim && !inner.begun
    }

    /// Resolves with the reason when something has lasted too long.
    pub(crate) async fn timed_out(&self, limits: &Limits) -> &'static str {
        loop {
            if let Some(reason) = self.overdue(limits) {
                return reason;
            }
            tokio::time::sleep(limits.tick()).await;
        }
    }

    /// The reason, if something has lasted too long.
    fn overdue(&self, limits: &Limits) -> Option<&'static str> {
        let inner = self.inner();
        let (waited, blocked) = (inner.since.elapsed(), inner.blocked.map(|(since, _)| since.elapsed()));
        if blocked.is_some_and(|blocked| blocked > limits.write) {
            return Some("the client takes its answer too slowly");
        }
        match inner.phase {
            Phase::Idle if inner.fresh => (waited > limits.header).then_some("no request came"),
            Phase::Idle => (waited > limits.idle).then_some("no further request came"),
            Phase::Head => (waited > limits.header).then_some("the request's head did not come"),
            // Whoever reads the body answers 408 before; this is for bodies that nobody reads.
            Phase::Body => (waited > 2 * limits.pause).then_some("the request's body did not come"),
            Phase::Answer => None,
        }
    }

    /// The instant since which nothing has come of a request that is not there or not complete, if it is idle at `now`; requests that
    /// still move are not meant.
    pub(crate) fn idle_since(&self, now: Instant) -> Option<Instant> {
        let inner = self.inner();
        match inner.phase {
            _ if inner.closing.is_some() => None,
            Phase::Idle => Some(inner.since),
            Phase::Head | Phase::Body => Some(inner.since + MOVES).filter(|since| *since <= now),
            Phase::Answer => None,
        }
    }

    /// Part of a request has come, and nothing of its answer is out.
    pub(crate) fn unanswered(&self) -> bool {
        let inner = self.inner();
        match inner.phase {
            Phase::Idle => false,
            Phase::Head => true,
            Phase::Body | Phase::Answer => !inner.begun,
        }
    }

    /// Asks its task to close it.
    pub(crate) fn close(&self, why: Close) {
        self.inner().closing = Some(why);
        self.close.notify_one();
    }

    /// Resolves when it has been asked to close.
    pub(crate) async fn closed(&self) -> Close {
        self.close.notified().await;
        self.inner().closing.unwrap_or(Close::End)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(ms: u64) -> Limits {
        let time = Duration::from_millis(ms);
        Limits { header: time, idle: time, pause: time, write: time, ..Limits::default() }
    }

    fn idle(activity: &Activity) -> Option<Instant> {
        activity.idle_since(Instant::now())
    }

    #[tokio::test]
    async fn an_answer_is_in_flight_until_it_is_flushed() {
        let (activity, live) = (Activity::new(), Arc::new(AtomicUsize::new(0)));
        activity.read();
        activity.begin(Version::HTTP_11, true).await;
        let unanswered = Unanswered::new(&live);
        activity.flushed();
        activity.body_read();
        assert!(idle(&activity).is_none() && activity.takes_interim());
        activity.wrote(1);
        assert!(!activity.takes_interim());
        activity.handed_over(unanswered);
        assert_eq!(live.load(Ordering::Acquire), 1);
        activity.flushed();
        assert_eq!(live.load(Ordering::Acquire), 0);
        assert!(idle(&activity).is_some());
    }

    #[tokio::test]
    async fn each_phase_has_its_limit() {
        let (short, long) = (limits(0), limits(60_000));
        let activity = Activity::new();
        let late = |activity: &Activity| {
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(activity.overdue(&long), None);
            activity.overdue(&short)
        };
        assert_eq!(late(&activity), Some("no request came"));
        activity.read();
        assert_eq!(late(&activity), Some("the request's head did not come"));
        activity.begin(Version::HTTP_11, true).await;
        assert_eq!(late(&activity), Some("the request's body did not come"));
        activity.body_read();
        assert_eq!(late(&activity), None);
        activity.blocked();
        assert_eq!(late(&activity), Some("the client takes its answer too slowly"));
        activity.answered();
        assert_eq!(late(&activity), Some("no further request came"));
    }

    #[tokio::test]
    async fn a_client_that_takes_a_byte_now_and_then_is_too_slow() {
        let (short, activity) = (limits(20), Activity::new());
        activity.read();
        activity.begin(Version::HTTP_11, false).await;
        activity.blocked();
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(6));
            activity.wrote(1);
            activity.blocked();
        }
        assert!(activity.overdue(&short).is_some(), "four bytes are no progress");
        activity.wrote(PROGRESS);
        activity.blocked();
        assert_eq!(activity.overdue(&limits(10_000)), None);
        std::thread::sleep(Duration::from_millis(21));
        activity.flushed();
        assert_eq!(activity.overdue(&short), None, "all that there was has been taken");
    }

    #[tokio::test]
    async fn a_request_on_its_way_is_not_idle_and_unanswered_until_a_byte_is_out() {
        let activity = Activity::new();
        // However long this test takes, less than a second has passed at this instant.
        let now = Instant::now();
        let idle = |activity: &Activity| activity.idle_since(now);
        assert!(idle(&activity).is_some() && !activity.unanswered());
        activity.read();
        assert!(idle(&activity).is_none() && activity.unanswered(), "part of a head");
        activity.begin(Version::HTTP_11, true).await;
        assert!(idle(&activity).is_none() && activity.unanswered(), "part of a body");
        activity.body_read();
        assert!(activity.unanswered());
        activity.wrote(1);
        assert!(!activity.unanswered());
        activity.answered();
        activity.close(Close::Room);
        assert!(idle(&activity).is_none() && !activity.unanswered(), "it is asked once");
        assert_eq!(activity.closed().await, Close::Room);
    }
}
