//! The hold-back: work waits on the host until each of its points is reached, or the signal of it has been handed to the driver.
//!
//! The two queues may be views of one queue of the hardware, which runs in order: were a wait handed over before its signal, that queue
//! would wait forever.

use super::counter::{Counter, Progress, Ticket};
use mlx_serving_device::QueueKind;
use std::collections::VecDeque;
use std::sync::Arc;

/// A value that a counter must reach, or is raised to.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub(crate) counter: Arc<Counter>,
    pub(crate) value: u64,
}

/// Work handed to the driver as one piece.
#[derive(Debug)]
pub(super) struct Piece<P> {
    pub(super) waits: Vec<Mark>,
    pub(super) work: P,
}

/// A submission: at least one piece.
#[derive(Debug)]
pub(super) struct Entry<P, T> {
    pub(super) pieces: VecDeque<Piece<P>>,
    /// Raised when the last piece is done.
    pub(super) signals: Vec<Mark>,
    pub(super) payload: T,
}

/// Receiver of pieces: each comes with what it must wait for on the other queue, and its own ticket.
pub(super) trait Driver<P, T> {
    /// Hands one piece over.
    fn hand(&mut self, piece: &P, payload: &mut T, ticket: Ticket, after: Option<u64>) -> Handed;
    /// Notes that everything of `entry` has been handed over; `ticket` is its last piece's.
    fn sent(&mut self, entry: Entry<P, T>, ticket: Ticket);
}

/// Result of handing over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handed {
    /// The driver has it.
    Done,
    /// The driver refused it: the entry ends with what was handed over before.
    Refused,
}

/// Entries of two queues, each in order.
#[derive(Debug)]
pub(super) struct Schedule<P, T> {
    queues: [VecDeque<Entry<P, T>>; 2],
    handed: [u64; 2],
}

impl<P, T> Default for Schedule<P, T> {
    fn default() -> Self {
        Self { queues: [VecDeque::new(), VecDeque::new()], handed: [0, 0] }
    }
}

impl<P, T> Schedule<P, T> {
    pub(super) fn push(&mut self, queue: QueueKind, entry: Entry<P, T>) {
        self.queues[queue as usize].push_back(entry);
    }

    /// Entry that comes next on a queue, of which the driver may have a part.
    pub(super) fn front(&self, queue: QueueKind) -> Option<&T> {
        self.queues[queue as usize].front().map(|entry| &entry.payload)
    }

    /// Hands over what is ready; what one queue hands over may make the other's ready.
    pub(super) fn pump(&mut self, driver: &mut impl Driver<P, T>) {
        while QueueKind::ALL.map(|queue| self.pump_queue(queue, driver)).contains(&true) {}
    }

    /// True if anything was handed over.
    fn pump_queue(&mut self, queue: QueueKind, driver: &mut impl Driver<P, T>) -> bool {
        let mut moved = false;
        while let Some(entry) = self.queues[queue as usize].front_mut() {
            let Some(after) = entry.pieces.front().and_then(|piece| ready(queue, &piece.waits)) else { break };
            let Some(piece) = entry.pieces.pop_front() else { break };
            moved = true;
            let ticket = Ticket { queue, value: self.handed[queue as usize] + 1 };
            match driver.hand(&piece.work, &mut entry.payload, ticket, after) {
                Handed::Done => self.handed[queue as usize] += 1,
                Handed::Refused => entry.pieces.clear(),
            }
            if entry.pieces.is_empty() {
                self.finish_front(queue, driver);
            }
        }
        moved
    }

    fn finish_front(&mut self, queue: QueueKind, driver: &mut impl Driver<P, T>) {
        let ticket = Ticket { queue, value: self.handed[queue as usize] };
        if let Some(entry) = self.queues[queue as usize].pop_front() {
            entry.signals.iter().for_each(|mark| mark.counter.hand(mark.value, ticket));
            driver.sent(entry, ticket);
        }
    }

    /// Takes everything that is held back, in order.
    pub(super) fn drain(&mut self) -> Vec<Entry<P, T>> {
        self.queues.iter_mut().flat_map(|queue| queue.drain(..)).collect()
    }
}

/// `None` while any mark is open; else the value of the other queue's semaphore that all of them need, if they need one.
fn ready(queue: QueueKind, waits: &[Mark]) -> Option<Option<u64>> {
    let mut after = None;
    for mark in waits {
        match mark.counter.progress(mark.value) {
            Progress::Reached => {}
            // The queue itself runs in order.
            Progress::Handed(ticket) if ticket.queue == queue => {}
            Progress::Handed(ticket) => after = after.max(Some(ticket.value)),
            Progress::Open => return None,
        }
    }
    Some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces that were handed over: (queue, work, after), and the entries that were sent.
    #[derive(Default)]
    struct Log {
        handed: Vec<(QueueKind, u32, Option<u64>)>,
        sent: Vec<(u32, Ticket)>,
        refuse: Option<u32>,
    }

    impl Driver<u32, u32> for Log {
        fn hand(&mut self, piece: &u32, _: &mut u32, ticket: Ticket, after: Option<u64>) -> Handed {
            if self.refuse == Some(*piece) {
                return Handed::Refused;
            }
            self.handed.push((ticket.queue, *piece, after));
            Handed::Done
        }
        fn sent(&mut self, entry: Entry<u32, u32>, ticket: Ticket) {
            self.sent.push((entry.payload, ticket));
        }
    }

    fn mark(counter: &Arc<Counter>, value: u64) -> Mark {
        Mark { counter: counter.clone(), value }
    }

    fn entry(name: u32, pieces: Vec<Vec<Mark>>, signals: Vec<Mark>) -> Entry<u32, u32> {
        let pieces = pieces.into_iter().zip(10 * name..).map(|(waits, work)| Piece { waits, work }).collect();
        Entry { pieces, signals, payload: name }
    }

    use QueueKind::{Compute, Transfer};

    #[test]
    fn a_wait_is_handed_over_after_its_signal_only() {
        let (mut schedule, mut log, counter) = (Schedule::default(), Log::default(), Arc::new(Counter::default()));
        schedule.push(Transfer, entry(1, vec![vec![mark(&counter, 3)]], vec![mark(&counter, 4)]));
        schedule.push(Transfer, entry(2, vec![vec![]], vec![]));
        schedule.pump(&mut log);
        assert!(log.handed.is_empty(), "the queue holds what is behind, too");
        schedule.push(Compute, entry(3, vec![vec![mark(&counter, 1)]], vec![mark(&counter, 3)]));
        schedule.push(Compute, entry(4, vec![vec![mark(&counter, 4)]], vec![]));
        schedule.pump(&mut log);
        assert!(log.handed.is_empty(), "the host has not signaled");
        counter.raise(1);
        schedule.pump(&mut log);
        let expected = [(Compute, 30, None), (Transfer, 10, Some(1)), (Transfer, 20, None), (Compute, 40, Some(1))];
        assert_eq!(log.handed, expected);
        assert_eq!(log.sent.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [3, 1, 2, 4]);
    }

    #[test]
    fn pieces_go_one_by_one_and_the_signal_comes_with_the_last() {
        let (mut schedule, mut log) = (Schedule::default(), Log::default());
        let [gate, done] = [(); 2].map(|()| Arc::new(Counter::default()));
        schedule.push(Compute, entry(1, vec![vec![], vec![mark(&gate, 1)], vec![]], vec![mark(&done, 9)]));
        schedule.push(Compute, entry(2, vec![vec![mark(&done, 9)]], vec![]));
        schedule.pump(&mut log);
        assert_eq!((log.handed.len(), log.sent.len()), (1, 0));
        assert_eq!(done.progress(9), Progress::Open);
        gate.raise(1);
        schedule.pump(&mut log);
        assert_eq!(log.handed[1..], [(Compute, 11, None), (Compute, 12, None), (Compute, 20, None)]);
        assert_eq!(done.progress(9), Progress::Handed(Ticket { queue: Compute, value: 3 }));
        assert_eq!(schedule.handed, [4, 0]);
    }

    #[test]
    fn what_the_driver_refuses_ends_its_entry_and_no_other() {
        let (mut schedule, mut log) = (Schedule::default(), Log { refuse: Some(11), ..Log::default() });
        let done = Arc::new(Counter::default());
        schedule.push(Compute, entry(1, vec![vec![], vec![], vec![]], vec![mark(&done, 1)]));
        schedule.push(Transfer, entry(2, vec![vec![mark(&done, 1)]], vec![]));
        schedule.pump(&mut log);
        assert_eq!(log.handed, [(Compute, 10, None), (Transfer, 20, Some(1))]);
        assert_eq!(log.sent[0], (1, Ticket { queue: Compute, value: 1 }));
    }

    #[test]
    fn what_is_held_back_can_be_taken_out() {
        let (mut schedule, mut log, never) = (Schedule::default(), Log::default(), Arc::new(Counter::default()));
        schedule.push(Transfer, entry(1, vec![vec![], vec![mark(&never, 1)]], vec![]));
        schedule.push(Compute, entry(2, vec![vec![mark(&never, 1)]], vec![]));
        schedule.pump(&mut log);
        assert_eq!(schedule.drain().into_iter().map(|entry| entry.payload).collect::<Vec<_>>(), [2, 1]);
        never.raise(1);
        schedule.pump(&mut log);
        assert_eq!(log.handed.len(), 1);
    }

    /// A driver of one queue that runs in order: it checks that nothing waits for what comes later.
    struct OneQueue {
        waits: Vec<Vec<Mark>>,
        handed: [Vec<usize>; 2],
    }

    impl Driver<usize, ()> for OneQueue {
        fn hand(&mut self, piece: &usize, (): &mut (), ticket: Ticket, after: Option<u64>) -> Handed {
            for mark in &self.waits[*piece] {
                match mark.counter.progress(mark.value) {
                    Progress::Open => panic!("piece {piece} waits for what the driver does not have"),
                    Progress::Handed(other) if other.queue != ticket.queue => assert!(after >= Some(other.value)),
                    Progress::Handed(_) | Progress::Reached => {}
                }
            }
            assert!(after.unwrap_or(0) as usize <= self.handed[ticket.queue.other() as usize].len());
            self.handed[ticket.queue as usize].push(*piece);
            assert_eq!(self.handed[ticket.queue as usize].len() as u64, ticket.value);
            Handed::Done
        }
        fn sent(&mut self, _: Entry<usize, ()>, _: Ticket) {}
    }

    proptest::proptest! {
        /// Checks that with any waits nothing goes before its signal, and everything goes once the host has raised all.
        #[test]
        fn nothing_waits_for_what_comes_later(
            entries in proptest::collection::vec((proptest::bool::ANY, proptest::collection::vec(0usize..12, 0..3)), 1..12),
        ) {
            let counters: Vec<Arc<Counter>> = (0..12).map(|_| Arc::default()).collect();
            let waits = entries.iter().map(|(_, waits)| waits.iter().map(|i| mark(&counters[*i], 1)).collect()).collect();
            let (mut schedule, mut driver) = (Schedule::default(), OneQueue { waits, handed: Default::default() });
            for (i, (on_compute, _)) in entries.iter().enumerate() {
                let pieces = [Piece { waits: driver.waits[i].clone(), work: i }].into();
                let queue = if *on_compute { Compute } else { Transfer };
                schedule.push(queue, Entry { pieces, signals: vec![mark(&counters[i], 1)], payload: () });
                schedule.pump(&mut driver);
            }
            for counter in &counters {
                counter.raise(1);
                schedule.pump(&mut driver);
            }
            for (queue, compute) in [(Compute, true), (Transfer, false)] {
                let of_queue = |i: &usize| entries[*i].0 == compute;
                let expected: Vec<usize> = (0..entries.len()).filter(of_queue).collect();
                proptest::prop_assert_eq!(&driver.handed[queue as usize], &expected);
            }
        }
    }
}
