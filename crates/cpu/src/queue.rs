use crate::encoder::{CpuCommands, CpuEncoder, Segment};
use crate::ops::{Lowering, Step};
use crate::pool::Pool;
use crate::sync::awake_until;
use mlx_serving_device::{
    CommandBuffer, Completion, DeviceError, Encoder, Point, Queue, QueueId, QueueKind, Result, Submission,
};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Counters of both queues, on the clock that started with the device.
#[derive(Debug)]
pub(crate) struct Activity {
    pub(crate) epoch: Instant,
    pub(crate) submissions: AtomicU64,
    pub(crate) compute: Mutex<Busy>,
}

/// Time for which a queue ran ops, and the start of its current run.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    total: Duration,
    since: Option<Instant>,
}

impl Busy {
    fn begin(&mut self) {
        self.since = Some(Instant::now());
    }

    fn end(&mut self) {
        self.total = self.until_now();
        self.since = None;
    }

    /// Time so far, with the current run.
    pub(crate) fn until_now(&self) -> Duration {
        self.total + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Activity {
    pub(crate) fn compute(&self) -> MutexGuard<'_, Busy> {
        self.compute.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Entry {
    commands: CpuCommands,
    waits: Vec<Point>,
    signal: Option<Point>,
    submission: Arc<Completion>,
}

/// State that submitters and the queue's thread share.
#[derive(Default)]
struct Inbox {
    entries: Mutex<VecDeque<Entry>>,
    /// Entries ever put in: what the thread looks at while it is awake.
    arrivals: AtomicUsize,
    arrived: Condvar,
    closing: AtomicBool,
}

impl Inbox {
    /// The next entry, in order; `None` when the queue closes and all is done. `taken` counts the entries taken before.
    fn next(&self, taken: usize) -> Option<Entry> {
        let something = || self.arrivals.load(Ordering::Acquire) != taken || self.closing.load(Ordering::Acquire);
        awake_until(something);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(entry) = entries.pop_front() {
                return Some(entry);
            }
            if self.closing.load(Ordering::Acquire) {
                return None;
            }
            entries = self.arrived.wait(entries).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A queue: one thread that runs command buffers in the order of submission. The compute queue's is worker 0 of the pool.
pub(crate) struct CpuQueue {
    id: QueueId,
    lowering: Arc<Lowering>,
    inbox: Arc<Inbox>,
    activity: Arc<Activity>,
    thread: Option<JoinHandle<()>>,
}

impl CpuQueue {
    pub(crate) fn new(id: QueueId, pool: Pool, lowering: Arc<Lowering>, activity: Arc<Activity>) -> Result<Arc<Self>> {
        let inbox = Arc::new(Inbox::default());
        let mut runner = Runner { kind: id.kind, pool, inbox: inbox.clone(), activity: activity.clone() };
        let name = match id.kind {
            QueueKind::Compute => "cpu-worker-0",
            QueueKind::Transfer => "cpu-transfer",
        };
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || runner.serve())
            .map_err(|e| DeviceError::Lost(format!("no thread for a queue: {e}")))?;
        Ok(Arc::new(Self { id, lowering, inbox, activity, thread: Some(thread) }))
    }
}

impl Queue for CpuQueue {
    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(CpuEncoder::new(self.id, self.lowering.clone())))
    }

    fn submit(
        &self,
        commands: Box<dyn CommandBuffer>,
        waits: &[Point],
        signal: Option<Point>,
    ) -> Result<Arc<dyn Submission>> {
        let commands = *self.id.take(commands)?;
        let submission = Arc::new(Completion::default());
        let entry = Entry { commands, waits: waits.to_vec(), signal, submission: submission.clone() };
        self.activity.submissions.fetch_add(1, Ordering::Relaxed);
        self.inbox.entries.lock().unwrap_or_else(PoisonError::into_inner).push_back(entry);
        self.inbox.arrivals.fetch_add(1, Ordering::Release);
        self.inbox.arrived.notify_one();
        Ok(submission)
    }
}

impl Drop for CpuQueue {
    /// Runs what has been submitted; what waits for a point that nobody has reached fails.
    fn drop(&mut self) {
        {
            let _entries = self.inbox.entries.lock().unwrap_or_else(PoisonError::into_inner);
            self.inbox.closing.store(true, Ordering::Release);
        }
        self.inbox.arrived.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the {:?} queue panicked", self.id.kind);
        }
    }
}

impl fmt::Debug for CpuQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuQueue({:?})", self.id.kind)
    }
}

/// The queue's thread.
struct Runner {
    kind: QueueKind,
    pool: Pool,
    inbox: Arc<Inbox>,
    activity: Arc<Activity>,
}

impl Runner {
    /// Interval at which a wait looks whether the queue is closing; no op waits for it.
    const LOOK_UP: Duration = Duration::from_millis(50);

    fn serve(&mut self) {
        for taken in 0.. {
            let Some(entry) = self.inbox.next(taken) else { return };
            let (outcome, times) = self.run(&entry);
            // The memory that the ops use is released before anybody learns that they are done.
            drop(entry.commands);
            entry.submission.end(outcome, Some(times));
            if let Some(point) = entry.signal {
                point.timeline.signal(point.value);
            }
        }
    }

    fn run(&mut self, entry: &Entry) -> (Result<()>, (Duration, Duration)) {
        let (mut outcome, mut began) = (self.wait(&entry.waits), None);
        for segment in &entry.commands.segments {
            outcome = outcome.and_then(|()| self.wait(&segment.waits));
            // Its first op: a submission that waits does not run yet.
            if outcome.is_ok() && !segment.steps.is_empty() {
                began.get_or_insert_with(|| self.activity.epoch.elapsed());
                outcome = self.run_segment(segment);
            }
        }
        let ended = self.activity.epoch.elapsed();
        (outcome, (began.unwrap_or(ended), ended))
    }

    fn run_segment(&mut self, segment: &Segment) -> Result<()> {
        self.pool.reserve(segment.steps.iter().map(Step::shared_bytes).max().unwrap_or(0))?;
        if self.kind == QueueKind::Compute {
            self.activity.compute().begin();
        }
        let outcome = self.pool.run(&|worker| {
            for (i, step) in segment.steps.iter().enumerate() {
                step.run(worker)?;
                // Weights do not depend on what the others are still computing.
                let ahead = segment.steps[i + 1..].iter().take(2).find(|step| step.has_weights());
                worker.barrier_doing(|| ahead.iter().for_each(|step| step.ask_ahead(worker.index)))?;
            }
            Ok(())
        });
        if self.kind == QueueKind::Compute {
            self.activity.compute().end();
        }
        outcome
    }

    fn wait(&self, points: &[Point]) -> Result<()> {
        for point in points {
            while !point.reached() {
                match point.wait(Self::LOOK_UP) {
                    Err(DeviceError::Timeout { .. }) if self.inbox.closing.load(Ordering::Acquire) => {
                        let value = point.value;
                        return Err(DeviceError::Lost(format!(
                            "the device was dropped before a timeline reached {value}"
                        )));
                    }
                    Ok(()) | Err(DeviceError::Timeout { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
