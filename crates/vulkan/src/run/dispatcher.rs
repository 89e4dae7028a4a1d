use super::clock::{Busy, Clock};
use super::flight::{Flight, Load, Stopwatch};
use super::profile::{KernelTime, Profile};
use super::schedule::Schedule;
use crate::error::driver;
use crate::find::Gpu;
use crate::record::Tape;
use ash::vk;
use mlx_serving_device::{QueueKind, Result};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Submissions that have not ended.
pub(super) struct Submissions {
    pub(super) schedule: Schedule<Option<Tape>, Load>,
    pub(super) flights: [VecDeque<Flight>; 2],
    /// Submissions of which the driver has had everything.
    pub(super) sent: u64,
    /// Value that the semaphore of each queue is known to have reached.
    pub(super) reached: [u64; 2],
    /// Value of the other's semaphore that each queue has waited for.
    pub(super) waited: [u64; 2],
    pub(super) clock: Clock,
    pub(super) watches: [Stopwatch; 2],
    pub(super) closing: bool,
}

impl Submissions {
    /// The queue of the next submission to end: of those that the device has finished, the one handed over first.
    pub(super) fn next_ended(&self) -> Option<QueueKind> {
        let front = |queue: QueueKind| self.flights[queue as usize].front().map(|flight| (flight, queue));
        let fronts = QueueKind::ALL.into_iter().filter_map(front);
        let ended = fronts.filter(|(flight, queue)| flight.ticket <= self.reached[*queue as usize]);
        ended.min_by_key(|(flight, _)| flight.number).map(|(_, queue)| queue)
    }
}

/// Hands submissions to the driver and ends them, on any thread that asks.
pub(crate) struct Dispatcher {
    pub(super) gpu: Arc<Gpu>,
    pub(super) queues: [vk::Queue; 2],
    pub(super) semaphores: [vk::Semaphore; 2],
    pub(super) arrived: [Condvar; 2],
    pending: Mutex<Submissions>,
    epoch: Instant,
    pub(super) submissions: AtomicU64,
    pub(crate) pieces: AtomicU64,
    /// The next piece is to be refused: set by tests.
    pub(crate) refuse: AtomicBool,
}

impl Dispatcher {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Self> {
        let watch = |compute: bool| {
            let at = if compute { gpu.queues.compute } else { gpu.queues.transfer };
            let bits = gpu.survey.families[at.family as usize].timestamp_valid_bits;
            Stopwatch {
                bits: if gpu.survey.timestamps(compute) { bits } else { 0 },
                busy: Busy::default(),
                profile: Profile::default(),
            }
        };
        let first = semaphore(gpu)?;
        // SAFETY: the first is unused.
        let second = semaphore(gpu).inspect_err(|_| unsafe { gpu.raw.destroy_semaphore(first, None) })?;
        let pending = Submissions {
            schedule: Schedule::default(),
            flights: [VecDeque::new(), VecDeque::new()],
            sent: 0,
            reached: [0, 0],
            waited: [0, 0],
            clock: Clock::new(gpu.survey.limits.timestamp_period),
            watches: [watch(true), watch(false)],
            closing: false,
        };
        Ok(Self {
            gpu: gpu.clone(),
            queues: [gpu.queue(true), gpu.queue(false)],
            semaphores: [first, second],
            arrived: [Condvar::new(), Condvar::new()],
            pending: Mutex::new(pending),
            epoch: Instant::now(),
            submissions: AtomicU64::new(0),
            pieces: AtomicU64::new(0),
            refuse: AtomicBool::new(false),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Submissions> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the device was made.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Command buffers submitted.
    pub(crate) fn submissions(&self) -> u64 {
        self.submissions.load(Relaxed)
    }

    /// Time for which the compute queue ran ops, up to now.
    pub(crate) fn busy(&self) -> Duration {
        let pending = self.lock();
        let (now, watch) = (self.now(), &pending.watches[QueueKind::Compute as usize]);
        let mut busy = watch.busy;
        let flying = pending.flights[QueueKind::Compute as usize].iter().map(|flight| &flight.load);
        for load in flying.chain(pending.schedule.front(QueueKind::Compute)) {
            watch.look(&self.gpu, &pending.clock, load, now, &mut busy);
        }
        busy.total
    }

    /// Times of the kernels, in a profile.
    pub(crate) fn profile(&self) -> Vec<KernelTime> {
        self.lock().watches[QueueKind::Compute as usize].profile.all()
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // SAFETY: the executor's threads have ended, and it waited for the device.
        self.semaphores.iter().for_each(|semaphore| unsafe { self.gpu.raw.destroy_semaphore(*semaphore, None) });
    }
}

fn semaphore(gpu: &Gpu) -> Result<vk::Semaphore> {
    let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
    let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
    // SAFETY: the device is alive and has timelines.
    unsafe { gpu.raw.create_semaphore(&info, None) }.map_err(|e| driver("a semaphore", e))
}
