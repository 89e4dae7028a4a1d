//! Allotment of the staging memory to transfers, and their order.

use crate::sync::{Condvar, Mutex, MutexGuard};
use mlx_serving_device::Patience;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Places begin at multiples of this, the strictest alignment of copies among the backends.
const ALIGN: u64 = 256;

/// Bytes held until they are given back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Room {
    id: u64,
    /// It belongs to the streamed transfers' ring.
    pub streamed: bool,
    /// Within the ring's memory, bytes.
    pub range: Range<u64>,
}

/// A ring of bytes, bounded in bytes and in places. Places are reused in the order in which they were handed out.
#[derive(Debug)]
struct Ring {
    bytes: u64,
    places: usize,
    head: u64,
    next_id: u64,
    held: VecDeque<Held>,
}

#[derive(Debug)]
struct Held {
    id: u64,
    range: Range<u64>,
    over: bool,
}

impl Ring {
    fn new(bytes: u64, places: usize) -> Self {
        Self { bytes, places, head: 0, next_id: 0, held: VecDeque::new() }
    }

    /// `len` bytes in one piece, if there is room.
    fn reserve(&mut self, len: u64, streamed: bool) -> Option<Room> {
        if self.held.len() >= self.places {
            return None;
        }
        let len = len.checked_next_multiple_of(ALIGN)?;
        let start = self.place(len)?;
        let range = start..start + len;
        self.head = range.end;
        self.next_id += 1;
        self.held.push_back(Held { id: self.next_id, range: range.clone(), over: false });
        Some(Room { id: self.next_id, streamed, range })
    }

    fn place(&self, len: u64) -> Option<u64> {
        let head = self.head;
        match self.held.iter().find(|h| !h.range.is_empty()).map(|h| h.range.start) {
            _ if len == 0 => Some(head),
            None => (len <= self.bytes).then_some(0),
            Some(tail) if head > tail && head + len <= self.bytes => Some(head),
            Some(tail) if head > tail => (len <= tail).then_some(0),
            Some(tail) => (head + len <= tail).then_some(head),
        }
    }

    fn give_back(&mut self, id: u64) {
        if let Some(held) = self.held.iter_mut().find(|h| h.id == id) {
            held.over = true;
        }
        while self.held.front().is_some_and(|h| h.over) {
            self.held.pop_front();
        }
    }
}

/// The worker's next task.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken<J> {
    /// This.
    Run(Room, J),
    /// Tell this one that it will not be run.
    Abandon(J),
    /// All is done.
    End,
}

/// Transfers queued for the worker, each with its room in the staging memory. Those that are due wait for room before they
/// are queued; streamed ones queue without bound and get room when their turn comes. Each kind has a ring of its own, so that
/// neither holds up the other.
#[derive(Debug)]
pub(crate) struct Gate<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<J> {
    due_ring: Ring,
    stream_ring: Ring,
    due: VecDeque<(Room, J)>,
    streamed: VecDeque<(u64, J)>,
    closed: bool,
    /// Copies hang: room may never come.
    stuck: bool,
}

impl<J> Gate<J> {
    /// `bytes` and `places` for each of the two rings.
    pub(crate) fn new(bytes: u64, places: usize) -> Self {
        let ring = || Ring::new(bytes, places);
        let state = State {
            due_ring: ring(),
            stream_ring: ring(),
            due: VecDeque::new(),
            streamed: VecDeque::new(),
            closed: false,
            stuck: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for `len` bytes, at most `limit`, then queues what `admit` makes of `request`; it is called in
    /// the order of the queue. Returns what `admit` gives beside the job and how long it waited, or the request when the time
    /// is up.
    pub(crate) fn put<R, T>(
        &self,
        len: u64,
        limit: Duration,
        request: R,
        admit: impl FnOnce(R) -> (J, T),
    ) -> Result<(T, Option<Duration>), R> {
        let mut waiting = None;
        let mut state = self.lock();
        loop {
            if let Some(room) = state.due_ring.reserve(len, false) {
                let (job, told) = admit(request);
                state.due.push_back((room, job));
                self.changed.notify_all();
                return Ok((told, waiting.map(|(since, _): (Instant, Patience)| since.elapsed())));
            }
            let (_, patience) = waiting.get_or_insert_with(|| (Instant::now(), Patience::new(limit)));
            let Some(slice) = patience.slice() else { return Err(request) };
            state = self.changed.wait_timeout(state, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Queues a job that gets room for `len` bytes when nothing is due.
    pub(crate) fn stream<T>(&self, len: u64, admit: impl FnOnce() -> (J, T)) -> T {
        let mut state = self.lock();
        let (job, told) = admit();
        state.streamed.push_back((len, job));
        self.changed.notify_all();
        told
    }

    /// The next job; waits for one. What is due goes first, unless it would wait for something that may itself wait for the
    /// stream: then `ready` says no, and the stream goes first.
    pub(crate) fn take(&self, ready: impl Fn(&J) -> bool) -> Taken<J> {
        let mut state = self.lock();
        loop {
            let due = state.due.front().is_some_and(|(_, job)| state.closed || state.streamed.is_empty() || ready(job));
            if due && let Some((room, job)) = state.due.pop_front() {
                return Taken::Run(room, job);
            }
            if state.closed {
                return state.streamed.pop_front().map_or(Taken::End, |(_, job)| Taken::Abandon(job));
            }
            if let Some(&(len, _)) = state.streamed.front()
                && let Some(room) = state.stream_ring.reserve(len, true)
                && let Some((_, job)) = state.streamed.pop_front()
            {
                return Taken::Run(room, job);
            }
            if state.stuck
                && let Some((_, job)) = state.streamed.pop_front()
            {
                return Taken::Abandon(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes if copies hang. While they do, the stream does not wait for room.
    pub(crate) fn set_stuck(&self, stuck: bool) {
        self.lock().stuck = stuck;
        self.changed.notify_all();
    }

    /// Frees a place.
    pub(crate) fn give_back(&self, room: &Room) {
        let mut state = self.lock();
        if room.streamed {
            state.stream_ring.give_back(room.id)
        } else {
            state.due_ring.give_back(room.id)
        }
        self.changed.notify_all();
    }

    /// Lets the worker end once everything that is due has been taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

/// `RUSTFLAGS="--cfg loom" cargo test -p mlx-serving-metal-layer --lib --release loom`
#[cfg(all(test, loom))]
mod loom_tests;
