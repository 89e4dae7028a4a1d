//! Allotment of the staging memory to transfers, and their order.

use crate::sync::{Condvar, Mutex, MutexGuard};
use mlx_serving_device::Patience;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Places begin at multiples of this, the strictest alignment of copies among the backends.
const ALIGN: u64 = 256;

/// Bytes held until they are released.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Room {
    id: u64,
    /// True for a place of the streamed transfers' ring.
    pub streamed: bool,
    /// Range within the ring's memory, bytes.
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

    fn release(&mut self, id: u64) {
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
    /// Runs this job, with its room.
    Run(Room, J),
    /// Tells this one that it will not be run.
    Abandon(J),
    /// Ends the worker: all is done.
    End,
}

/// Transfers queued for the worker, each with its room in the staging memory. Those that are due wait for room before they
/// are queued; streamed ones queue without bound and get room when their turn comes. Each kind has a ring of its own, so that
/// neither holds up the other.
#[derive(Debug)]
pub(crate) struct Gate<J> {
    queues: Mutex<Queues<J>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Queues<J> {
    due_ring: Ring,
    stream_ring: Ring,
    due: VecDeque<(Room, J)>,
    streamed: VecDeque<(u64, J)>,
    closed: bool,
    /// True while room is in quarantine, since copies hang: it may never come.
    quarantined: bool,
}

impl<J> Gate<J> {
    /// `bytes` and `places` for each of the two rings.
    pub(crate) fn new(bytes: u64, places: usize) -> Self {
        let ring = || Ring::new(bytes, places);
        let queues = Queues {
            due_ring: ring(),
            stream_ring: ring(),
            due: VecDeque::new(),
            streamed: VecDeque::new(),
            closed: false,
            quarantined: false,
        };
        Self { queues: Mutex::new(queues), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Queues<J>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut queues = self.lock();
        loop {
            if let Some(room) = queues.due_ring.reserve(len, false) {
                let (job, told) = admit(request);
                queues.due.push_back((room, job));
                self.changed.notify_all();
                return Ok((told, waiting.map(|(since, _): (Instant, Patience)| since.elapsed())));
            }
            let (_, patience) = waiting.get_or_insert_with(|| (Instant::now(), Patience::new(limit)));
            let Some(slice) = patience.slice() else { return Err(request) };
            queues = self.changed.wait_timeout(queues, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Queues a job that gets room for `len` bytes when nothing is due.
    pub(crate) fn stream<T>(&self, len: u64, admit: impl FnOnce() -> (J, T)) -> T {
        let mut queues = self.lock();
        let (job, told) = admit();
        queues.streamed.push_back((len, job));
        self.changed.notify_all();
        told
    }

    /// The next job; waits for one. What is due goes first, unless it would wait for something that may itself wait for the
    /// stream: then `ready` says no, and the stream goes first.
    pub(crate) fn take(&self, ready: impl Fn(&J) -> bool) -> Taken<J> {
        let mut queues = self.lock();
        loop {
            let due =
                queues.due.front().is_some_and(|(_, job)| queues.closed || queues.streamed.is_empty() || ready(job));
            if due && let Some((room, job)) = queues.due.pop_front() {
                return Taken::Run(room, job);
            }
            if queues.closed {
                return queues.streamed.pop_front().map_or(Taken::End, |(_, job)| Taken::Abandon(job));
            }
            if let Some(&(len, _)) = queues.streamed.front()
                && let Some(room) = queues.stream_ring.reserve(len, true)
                && let Some((_, job)) = queues.streamed.pop_front()
            {
                return Taken::Run(room, job);
            }
            if queues.quarantined
                && let Some((_, job)) = queues.streamed.pop_front()
            {
                return Taken::Abandon(job);
            }
            queues = self.changed.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes if room is in quarantine, since copies hang. Meanwhile the stream does not wait for room.
    pub(crate) fn set_quarantined(&self, quarantined: bool) {
        self.lock().quarantined = quarantined;
        self.changed.notify_all();
    }

    /// Frees a place.
    pub(crate) fn release(&self, room: &Room) {
        let mut queues = self.lock();
        if room.streamed {
            queues.stream_ring.release(room.id)
        } else {
            queues.due_ring.release(room.id)
        }
        self.changed.notify_all();
    }

    /// Lets the worker end once everything that is due has been taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests;

/// `cargo test -p mlx-serving-metal-layer --features loom --lib loom`
#[cfg(all(test, feature = "loom"))]
mod loom_tests;
