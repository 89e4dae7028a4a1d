//! What is known of a connection: what it is doing and since when.

use crate::limits::Limits;
use crate::unread::Charge;
use axum::http::Version;
use futures::task::AtomicWaker;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes that a client that is waited for must take in the time that a write may last, unless fewer are left.
const PROGRESS: usize = 64 << 10;

/// Counts a request from its head until the last byte of its answer is out.
#[derive(Debug)]
pub(crate) struct Flight {
    live: Arc<AtomicUsize>,
    /// The bytes of its answer.
    pub charge: Option<Arc<Charge>>,
}

impl Flight {
    pub(crate) fn new(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::AcqRel);
        Self { live: live.clone(), charge: None }
    }
}

impl Drop for Flight {
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

/// What a connection owes its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A request is complete and its answer is not out.
    Answer,
    /// A request's body has not been taken.
    Body,
    Nothing,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// When the phase began; for a body, when its last piece came.
    since: Instant,
    /// Since when writes wait for the client, and the bytes that it took since.
    blocked: Option<(Instant, usize)>,
    /// No request has come yet.
    fresh: bool,
    /// A byte of the answer has been written.
    begun: bool,
    /// The client knows of interim answers.
    interim: bool,
    /// An answer that has been handed over completely and is not out.
    leaving: Option<Flight>,
    closing: bool,
}

/// One connection, seen by the socket, by HTTP and by the register.
#[derive(Debug)]
pub(crate) struct Conn {
    inner: Mutex<Inner>,
    close: Notify,
    /// An answer is out.
    out: Notify,
    /// Who waits for an answer to be out before it reads on.
    reader: AtomicWaker,
}

impl Conn {
    pub(crate) fn new() -> Arc<Self> {
        let inner = Inner {
            phase: Phase::Idle,
            since: Instant::now(),
            blocked: None,
            fresh: true,
            begun: false,
            interim: false,
            leaving: None,
            closing: false,
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
    pub(crate) fn leave(&self, flight: Flight) {
        self.inner().leaving = Some(flight);
    }

    /// Nothing waits to be written.
    pub(crate) fn flushed(&self) {
        let inner = &mut *self.inner();
        inner.blocked = None;
        if inner.leaving.take().is_some() {
            self.rest(inner);
        }
    }

    /// The front's answer is out.
    pub(crate) fn answered(&self) {
        self.rest(&mut self.inner());
    }

    fn rest(&self, inner: &mut Inner) {
        (inner.phase, inner.since, inner.blocked) = (Phase::Idle, Instant::now(), None);
        self.out.notify_waiters();
        self.reader.wake();
    }

    /// The connection has ended, whatever it was doing.
    pub(crate) fn ended(&self) {
        self.inner().leaving = None;
    }

    /// What the client may wait for. The reader is woken when an answer is out.
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

    /// What has lasted too long, if anything has.
    pub(crate) fn overdue(&self, limits: &Limits) -> Option<&'static str> {
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

    /// How long nothing has come of a request that is not there or not complete; bodies that still move are not meant.
    pub(crate) fn idle(&self) -> Option<Duration> {
        let inner = self.inner();
        let waited = inner.since.elapsed();
        match inner.phase {
            _ if inner.closing => None,
            Phase::Idle | Phase::Head => Some(waited),
            Phase::Body => waited.checked_sub(Duration::from_secs(1)),
            Phase::Answer => None,
        }
    }

    /// Tells its task to end.
    pub(crate) fn close(&self) {
        self.inner().closing = true;
        self.close.notify_one();
    }

    /// Resolves when it has been told to end.
    pub(crate) async fn closed(&self) {
        self.close.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(ms: u64) -> Limits {
        let time = Duration::from_millis(ms);
        Limits { header: time, idle: time, pause: time, write: time, ..Limits::default() }
    }

    #[tokio::test]
    async fn an_answer_is_in_flight_until_it_is_flushed() {
        let (conn, live) = (Conn::new(), Arc::new(AtomicUsize::new(0)));
        conn.read();
        conn.begin(Version::HTTP_11, true).await;
        let flight = Flight::new(&live);
        conn.flushed();
        conn.body_read();
        assert!(conn.idle().is_none() && conn.takes_interim());
        conn.wrote(1);
        assert!(!conn.takes_interim());
        conn.leave(flight);
        assert_eq!(live.load(Ordering::Acquire), 1);
        conn.flushed();
        assert_eq!(live.load(Ordering::Acquire), 0);
        assert!(conn.idle().is_some());
    }

    #[tokio::test]
    async fn each_phase_has_its_limit() {
        let (short, long) = (limits(0), limits(60_000));
        let conn = Conn::new();
        let late = |conn: &Conn| {
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(conn.overdue(&long), None);
            conn.overdue(&short)
        };
        assert_eq!(late(&conn), Some("no request came"));
        conn.read();
        assert_eq!(late(&conn), Some("the request's head did not come"));
        conn.begin(Version::HTTP_11, true).await;
        assert_eq!(late(&conn), Some("the request's body did not come"));
        conn.body_read();
        assert_eq!(late(&conn), None);
        conn.blocked();
        assert_eq!(late(&conn), Some("the client takes its answer too slowly"));
        conn.answered();
        assert_eq!(late(&conn), Some("no further request came"));
    }

    #[tokio::test]
    async fn a_client_that_takes_a_byte_now_and_then_is_too_slow() {
        let (short, conn) = (limits(20), Conn::new());
        conn.read();
        conn.begin(Version::HTTP_11, false).await;
        conn.blocked();
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(6));
            conn.wrote(1);
            conn.blocked();
        }
        assert!(conn.overdue(&short).is_some(), "four bytes are no progress");
        conn.wrote(PROGRESS);
        conn.blocked();
        assert_eq!(conn.overdue(&limits(10_000)), None);
        std::thread::sleep(Duration::from_millis(21));
        conn.flushed();
        assert_eq!(conn.overdue(&short), None, "all that there was has been taken");
    }
}
