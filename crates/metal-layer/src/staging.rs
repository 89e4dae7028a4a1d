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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::ZERO;

    fn put(gate: &Gate<u32>, len: u64, job: u32) -> bool {
        gate.put(len, NOW, job, |job| (job, ())).is_ok()
    }

    fn run(gate: &Gate<u32>) -> (Room, u32) {
        match gate.take(|_| true) {
            Taken::Run(room, job) => (room, job),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_ring_refuses_in_time_and_takes_again_when_the_oldest_goes() {
        let gate = Gate::new(1024, 8);
        assert!(put(&gate, 512, 1) && put(&gate, 512, 2) && !put(&gate, 1, 3));
        let ((first, _), (second, _)) = (run(&gate), run(&gate));
        gate.give_back(&second);
        assert!(!put(&gate, 512, 4), "the oldest is still held");
        gate.give_back(&first);
        assert!(put(&gate, 1024, 5));
    }

    #[test]
    fn places_are_bounded_whatever_their_length() {
        let gate = Gate::new(1024, 2);
        assert!(put(&gate, 0, 1) && put(&gate, 0, 2) && !put(&gate, 0, 3));
        let (room, _) = run(&gate);
        gate.give_back(&room);
        assert!(put(&gate, 0, 4));
    }

    #[test]
    fn what_is_due_goes_first_unless_it_waits_for_the_stream() {
        let gate = Gate::new(1024, 4);
        gate.stream(100, || (10, ()));
        gate.stream(100, || (11, ()));
        assert!(put(&gate, 100, 1) && put(&gate, 100, 2));
        assert_eq!(run(&gate).1, 1);
        assert!(matches!(gate.take(|_| false), Taken::Run(_, 10)));
        assert!(matches!(gate.take(|_| false), Taken::Run(_, 11)));
        assert!(matches!(gate.take(|_| false), Taken::Run(_, 2)), "the stream is empty");
    }

    #[test]
    fn closing_runs_what_is_due_and_abandons_the_stream() {
        let gate = Gate::new(1024, 4);
        gate.stream(100, || (10, ()));
        put(&gate, 100, 1);
        gate.close();
        assert!(matches!(gate.take(|_| false), Taken::Run(_, 1)));
        assert_eq!(gate.take(|_| false), Taken::Abandon(10));
        assert_eq!(gate.take(|_| false), Taken::End);
    }

    #[test]
    fn the_stream_does_not_wait_for_room_that_copies_which_hang_hold() {
        let gate = Gate::new(1024, 1);
        gate.stream(1024, || (1, ()));
        gate.stream(1024, || (2, ()));
        assert!(matches!(gate.take(|_| true), Taken::Run(_, 1)));
        gate.set_stuck(true);
        assert_eq!(gate.take(|_| true), Taken::Abandon(2));
    }

    proptest! {
        #[test]
        fn places_lie_inside_and_never_overlap(steps in prop::collection::vec((any::<bool>(), 0u64..900, 0usize..8), 1..200)) {
            let mut ring = Ring::new(2048, 5);
            let mut held: Vec<Room> = Vec::new();
            for (take, len, which) in steps {
                if take {
                    if let Some(room) = ring.reserve(len, false) {
                        prop_assert!(room.range.end <= 2048 && room.range.end - room.range.start >= len);
                        let apart = |h: &Room| room.range.is_empty() || h.range.is_empty() || h.range.end <= room.range.start || room.range.end <= h.range.start;
                        prop_assert!(held.iter().all(apart), "{room:?} among {held:?}");
                        held.push(room);
                    }
                    prop_assert!(held.len() <= 5);
                } else if !held.is_empty() {
                    ring.give_back(held.remove(which % held.len()).id);
                }
            }
            held.iter().for_each(|room| ring.give_back(room.id));
            prop_assert!(ring.reserve(2048, false).is_some(), "bytes were lost");
        }
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p mlx-serving-metal-layer --lib --release loom`
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    /// Loom has no time: a wake-up that is lost is a deadlock, which it reports.
    const EVER: Duration = Duration::from_secs(3600);

    #[test]
    fn loom_every_job_gets_through_a_ring_of_one_place() {
        loom::model(|| {
            let gate = Arc::new(Gate::new(ALIGN, 1));
            let producer = gate.clone();
            let producer = loom::thread::spawn(move || {
                producer.put(1, EVER, 1, |job| (job, ())).expect("no time limit");
                producer.stream(1, || (3, ()));
                producer.put(1, EVER, 2, |job| (job, ())).expect("no time limit");
                producer.close();
            });
            let mut seen = Vec::new();
            loop {
                match gate.take(|_| true) {
                    Taken::Run(room, job) => {
                        seen.push(job);
                        gate.give_back(&room);
                    }
                    Taken::Abandon(job) => seen.push(job),
                    Taken::End => break,
                }
            }
            producer.join().expect("the producer ends");
            seen.sort_unstable();
            assert_eq!(seen, [1, 2, 3]);
        });
    }

    #[test]
    fn loom_two_producers_never_hold_one_place() {
        loom::model(|| {
            let gate = Arc::new(Gate::new(ALIGN, 1));
            let producers: Vec<_> = (0..2)
                .map(|job| {
                    let gate = gate.clone();
                    loom::thread::spawn(move || gate.put(1, EVER, job, |job| (job, ())).expect("no time limit"))
                })
                .collect();
            for _ in 0..2 {
                let Taken::Run(room, _) = gate.take(|_| true) else { panic!("nothing to run") };
                assert!(gate.lock().due.is_empty(), "the only place is held twice");
                gate.give_back(&room);
            }
            producers.into_iter().for_each(|p| drop(p.join()));
        });
    }
}
