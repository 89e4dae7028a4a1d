use crate::apple::record::Step;
use crate::apple::timeline::MetalPoint;
use mlx_serving_device::{Completion, DeviceError, QueueKind, Result, Timeline as _, Times};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Command buffers that one queue has in flight. Metal's own limit is 64, at which making another blocks; one counts until its
/// completion handler has returned, so that a handler which makes others must stay below.
pub(super) const LIMIT: usize = 60;
/// Command buffers of one submission at most.
pub(super) const PIECES: usize = 8;

/// A submission: what keeps its memory alive, what it waits for, and who is told of its end.
pub(crate) struct Flight {
    /// Points that must be reached before the first step.
    pub(super) waits: Vec<MetalPoint>,
    pub(super) steps: Vec<Step>,
    pub(super) signal: Option<MetalPoint>,
    pub(crate) submission: Arc<Completion>,
    /// Command buffers that it takes.
    pub(super) pieces: usize,
    /// Result that the device gave it.
    landed: Option<(Result<()>, Option<Times>)>,
    /// True if nobody will reach what it waits for.
    abandoned: bool,
}

impl Flight {
    pub(crate) fn new(waits: Vec<MetalPoint>, steps: Vec<Step>, signal: Option<MetalPoint>) -> Self {
        Self { waits, steps, signal, submission: Arc::default(), pieces: 1, landed: None, abandoned: false }
    }

    /// Points that the host has not seen reached, of those that it waits for anywhere.
    fn unreached(&self) -> impl Iterator<Item = &MetalPoint> {
        let within = self.steps.iter().filter_map(|step| match step {
            Step::Wait(point) => Some(point),
            _ => None,
        });
        self.waits.iter().chain(within).filter(|point| !point.reached())
    }

    /// The device has ended it, and the host has seen all that came before: the completion handlers of two queues run in any order.
    /// A failed submission may have waited for points that are never reached.
    fn may_retire(&self) -> bool {
        match &self.landed {
            None => false,
            Some((Ok(()), _)) => self.unreached().next().is_none(),
            Some((Err(_), _)) => true,
        }
    }

    /// Ends the submission in the order that the contract asks for: memory, end, point.
    fn retire(self) {
        let Some((outcome, times)) = self.landed else { return };
        drop(self.steps);
        self.submission.end(outcome, times);
        if let Some(point) = self.signal {
            point.timeline().signal(point.value());
        }
    }
}

/// Submissions in flight on both queues, and what they leave behind.
#[derive(Default)]
pub(crate) struct Flights {
    board: Mutex<FlightBoard>,
    changed: Condvar,
}

#[derive(Default)]
struct FlightBoard {
    queues: [QueueFlights; 2],
    submissions: u64,
    busy: Duration,
    /// End of the latest run that `busy` counts.
    counted: Duration,
    lost: Option<DeviceError>,
}

/// A queue's flights, in order.
#[derive(Default)]
struct QueueFlights {
    flights: VecDeque<Flight>,
    /// Number of the next one to depart.
    next: u64,
}

impl QueueFlights {
    /// Command buffers from the first flight on that the device has not ended.
    fn airborne(&self) -> usize {
        self.flights.iter().skip_while(|flight| flight.landed.is_some()).map(|flight| flight.pieces).sum()
    }
}

impl FlightBoard {
    /// Retires what may be, each queue in order. Under the lock, so that ends show in order too.
    fn retire(&mut self) {
        while let Some(flight) = self.queues.iter_mut().find_map(|queue| queue.flights.pop_front_if(|f| f.may_retire()))
        {
            flight.retire();
        }
    }
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, FlightBoard> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a submission; refuses it once the device is lost.
    pub(crate) fn admit(&self) -> Result<()> {
        let mut board = self.lock();
        if let Some(error) = &board.lost {
            return Err(error.clone());
        }
        board.submissions += 1;
        Ok(())
    }

    /// Fails once the device is lost.
    pub(crate) fn alive(&self) -> Result<()> {
        self.lock().lost.clone().map_or(Ok(()), Err)
    }

    /// Submissions ever made, and for how long the compute queue ran.
    pub(crate) fn counters(&self) -> (u64, Duration) {
        let board = self.lock();
        (board.submissions, board.busy)
    }

    /// The number of the queue's next flight, if it may depart now: no two airborne ones are `LIMIT` or more apart.
    pub(super) fn clearance(&self, kind: QueueKind) -> Option<u64> {
        let queue = &self.lock().queues[kind as usize];
        (queue.airborne() + PIECES <= LIMIT).then_some(queue.next)
    }

    /// Notes the queue's next flight: before its command buffer is committed.
    pub(super) fn depart(&self, kind: QueueKind, flight: Flight) {
        let queue = &mut self.lock().queues[kind as usize];
        queue.flights.push_back(flight);
        queue.next += 1;
    }

    /// The device has ended a flight.
    pub(super) fn land(&self, kind: QueueKind, number: u64, outcome: Result<()>, times: Option<Times>) {
        let board = &mut *self.lock();
        if let (QueueKind::Compute, Some((began, ended))) = (kind, times) {
            board.busy += ended.saturating_sub(began.max(board.counted));
            board.counted = ended.max(board.counted);
        }
        if let Err(error @ DeviceError::Lost(_)) = &outcome {
            board.lost.get_or_insert_with(|| error.clone());
        }
        let queue = &mut board.queues[kind as usize];
        let first = queue.next - queue.flights.len() as u64;
        if let Some(flight) = queue.flights.get_mut((number - first) as usize) {
            flight.landed = Some((if flight.abandoned { Err(deserted()) } else { outcome }, times));
        }
        board.retire();
        self.changed.notify_all();
    }

    /// Waits until a queue is empty. What waits for a point that nobody has reached fails after a moment.
    pub(super) fn drain(&self, kind: QueueKind, waiting: impl Fn() -> bool) {
        const LOOK_UP: Duration = Duration::from_millis(50);
        const GIVE_UP: Duration = Duration::from_secs(10);
        let began = Instant::now();
        let mut board = self.lock();
        while !board.queues[kind as usize].flights.is_empty() || waiting() {
            if began.elapsed() > GIVE_UP {
                tracing::error!(?kind, "a queue was dropped while the device went on running");
                return;
            }
            let (next, timeout) = self.changed.wait_timeout(board, LOOK_UP).unwrap_or_else(PoisonError::into_inner);
            board = next;
            if timeout.timed_out() {
                board.queues[kind as usize].flights.iter_mut().for_each(abandon);
                board.retire();
            }
        }
    }
}

/// Ends the wait of a flight for a point that nobody has reached.
fn abandon(flight: &mut Flight) {
    if flight.unreached().next().is_none() {
        return;
    }
    flight.unreached().for_each(|point| point.timeline().release_device(point.value()));
    flight.abandoned = true;
    // It has landed already if the other queue's flights waited for the same point and were released.
    if let Some((outcome, _)) = &mut flight.landed {
        *outcome = Err(deserted());
    }
}

fn deserted() -> DeviceError {
    DeviceError::Lost("the device was dropped before a timeline reached what a submission waited for".into())
}
