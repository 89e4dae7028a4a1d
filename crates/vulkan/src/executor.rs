use crate::bundle::Tape;
use crate::clock::{Busy, Clock};
use crate::counter::{Counter, Lane, Progress, Ticket};
use crate::encoder::VulkanCommands;
use crate::error::driver;
use crate::flight::{Flight, Load, Stopwatch};
use crate::gpu::Gpu;
use crate::handover::Handover;
use crate::pipeline::Pipelines;
use crate::profile::{KernelTime, Profile};
use crate::schedule::{Entry, Mark, Piece, Schedule};
use crate::submission::VulkanSubmission;
use ash::vk;
use mlx_serving_device::{DeviceError, Patience, Result};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread waits for the device before it looks around.
const LOOK_UP: Duration = Duration::from_secs(1);
/// How long the clocks are trusted to run alike.
const CALIBRATED: Duration = Duration::from_secs(1);

/// What is on its way.
pub(crate) struct State {
    pub(crate) schedule: Schedule<Option<Tape>, Load>,
    pub(crate) flights: [VecDeque<Flight>; 2],
    /// Submissions of which the driver has had everything.
    pub(crate) sent: u64,
    /// By lane: the value that its semaphore is known to have reached.
    pub(crate) reached: [u64; 2],
    /// By lane: the value of the other's semaphore that it has waited for.
    pub(crate) waited: [u64; 2],
    clock: Clock,
    watches: [Stopwatch; 2],
    closing: bool,
}

impl State {
    /// The lane of the next submission to end: of those that the device is through with, the one handed over first.
    fn next_ended(&self) -> Option<Lane> {
        let front = |lane: Lane| self.flights[lane as usize].front().map(|flight| (flight, lane));
        let fronts = Lane::ALL.into_iter().filter_map(front);
        let ended = fronts.filter(|(flight, lane)| flight.ticket <= self.reached[*lane as usize]);
        ended.min_by_key(|(flight, _)| flight.number).map(|(_, lane)| lane)
    }
}

/// Hands submissions to the driver and ends them, on whatever thread comes by.
pub(crate) struct Shared {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) queues: [vk::Queue; 2],
    pub(crate) semaphores: [vk::Semaphore; 2],
    pub(crate) arrived: [Condvar; 2],
    state: Mutex<State>,
    epoch: Instant,
    submissions: AtomicU64,
    pub(crate) pieces: AtomicU64,
    /// The next piece is to be refused: set by tests.
    pub(crate) refuse: AtomicBool,
}

impl Shared {
    fn new(gpu: &Arc<Gpu>) -> Result<Self> {
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
        // SAFETY: the first is in nobody's use.
        let second = semaphore(gpu).inspect_err(|_| unsafe { gpu.raw.destroy_semaphore(first, None) })?;
        let state = State {
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
            state: Mutex::new(state),
            epoch: Instant::now(),
            submissions: AtomicU64::new(0),
            pieces: AtomicU64::new(0),
            refuse: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the device was made.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Command buffers submitted.
    pub(crate) fn submissions(&self) -> u64 {
        self.submissions.load(Relaxed)
    }

    /// For how long the compute queue ran ops, up to now.
    pub(crate) fn busy(&self) -> Duration {
        let state = self.state();
        let (now, watch) = (self.now(), &state.watches[Lane::Compute as usize]);
        let mut busy = watch.busy;
        let flying = state.flights[Lane::Compute as usize].iter().map(|flight| &flight.load);
        for load in flying.chain(state.schedule.front(Lane::Compute)) {
            watch.look(&self.gpu, &state.clock, load, now, &mut busy);
        }
        busy.total
    }

    /// What the kernels have taken, in a profile.
    pub(crate) fn profile(&self) -> Vec<KernelTime> {
        self.state().watches[Lane::Compute as usize].profile.all()
    }

    /// Takes a command buffer; the driver gets it when its points allow.
    pub(crate) fn submit(
        self: &Arc<Self>,
        commands: VulkanCommands,
        mut waits: Vec<Mark>,
        pieces: Vec<(Vec<Mark>, Option<Tape>)>,
        signal: Option<Mark>,
    ) -> Result<Arc<VulkanSubmission>> {
        self.gpu.alive()?;
        let VulkanCommands { lane, lease, held, recorder, launched, .. } = commands;
        let submission = Arc::new(VulkanSubmission {
            done: Arc::default(),
            outcome: OnceLock::new(),
            executor: Arc::downgrade(self),
        });
        let done = Mark { counter: submission.done.clone(), value: 1 };
        let pieces = pieces.into_iter().map(|(own, work)| {
            let waits = std::mem::take(&mut waits).into_iter().chain(own).collect();
            Piece { waits, work }
        });
        let load = Load {
            submission: submission.clone(),
            lease,
            held,
            recorder,
            launched,
            running: Vec::new(),
            after: 0,
            refused: None,
        };
        let entry = Entry { pieces: pieces.collect(), signals: [done].into_iter().chain(signal).collect(), rest: load };
        self.submissions.fetch_add(1, Relaxed);
        let mut state = self.state();
        state.schedule.push(lane, entry);
        self.pump_locked(&mut state);
        Ok(submission)
    }

    /// Hands over what is ready.
    pub(crate) fn pump(&self) {
        self.pump_locked(&mut self.state());
    }

    fn pump_locked(&self, state: &mut State) {
        let mut schedule = std::mem::take(&mut state.schedule);
        schedule.pump(&mut Handover { shared: self, state });
        state.schedule = schedule;
        if self.gpu.alive().is_err() {
            self.end_all(state);
        }
    }

    /// Waits until the device has come to `ticket`; false if `limit` was too short.
    fn wait_for(&self, ticket: Ticket, limit: Duration) -> bool {
        let (semaphores, values) = ([self.semaphores[ticket.lane as usize]], [ticket.value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        let nanoseconds = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the semaphore lives as long as `self`.
        match unsafe { self.gpu.raw.wait_semaphores(&info, nanoseconds) } {
            Ok(()) => true,
            Err(vk::Result::TIMEOUT) => false,
            Err(error) => {
                self.lose(&format!("waiting for it: {error}"));
                true
            }
        }
    }

    /// Ends everything that the device is through with.
    pub(crate) fn retire(&self) {
        self.retire_locked(&mut self.state());
    }

    fn retire_locked(&self, state: &mut State) {
        if let Err(why) = self.try_retire(state) {
            self.lose_locked(state, &why);
        }
    }

    /// In the order of handing over, so that what a submission waited for on the other lane has ended before it.
    fn try_retire(&self, state: &mut State) -> Result<(), String> {
        for lane in Lane::ALL {
            state.reached[lane as usize] = self.reached(lane)?;
        }
        while let Some(lane) = state.next_ended() {
            let Some(flight) = state.flights[lane as usize].pop_front() else { break };
            if flight.load.after > state.reached[lane.other() as usize] {
                // It ended after the other lane was asked, and what it waited for before that.
                state.reached[lane.other() as usize] = self.reached(lane.other())?;
                state.flights[lane as usize].push_front(flight);
                continue;
            }
            let ended = self.now();
            self.calibrate(&mut state.clock, ended);
            let watch = &mut state.watches[lane as usize];
            let times = watch.stop(&self.gpu, &mut state.clock, &flight.load, ended);
            let outcome = flight.load.outcome();
            flight.load.end(&flight.signals, outcome, times);
        }
        Ok(())
    }

    /// How far the device has come with a lane.
    fn reached(&self, lane: Lane) -> Result<u64, String> {
        // SAFETY: the semaphore lives as long as `self`.
        let reached = unsafe { self.gpu.raw.get_semaphore_counter_value(self.semaphores[lane as usize]) };
        reached.map_err(|error| format!("asking how far it is: {error}"))
    }

    /// Sets the clock by the driver's word, where it gives that, if it was not set for long.
    fn calibrate(&self, clock: &mut Clock, now: Duration) {
        let fresh = clock.set_at().is_some_and(|at| now.saturating_sub(at) < CALIBRATED);
        let (Some(calibrated), false) = (&self.gpu.calibrated, fresh) else { return };
        let info = [vk::CalibratedTimestampInfoEXT::default().time_domain(vk::TimeDomainEXT::DEVICE)];
        let before = self.now();
        // SAFETY: the extension is enabled.
        if let Ok((ticks, _)) = unsafe { calibrated.get_calibrated_timestamps(&info) } {
            clock.set(ticks[0], (before + self.now()) / 2);
        }
    }

    /// The device is lost: everything under way ends in that error, and so will everything to come.
    pub(crate) fn lose(&self, why: &str) {
        self.lose_locked(&mut self.state(), why);
    }

    fn lose_locked(&self, state: &mut State, why: &str) {
        self.gpu.mark_lost(why);
        self.end_all(state);
    }

    /// Ends everything in order: what the device was through with as it ended, the rest as lost.
    fn end_all(&self, state: &mut State) {
        // SAFETY: the lock keeps others from the queues. A lost device refuses, and is idle.
        let _ = unsafe { self.gpu.raw.device_wait_idle() };
        let lost = || match self.gpu.alive() {
            Err(error) => Err(error),
            Ok(()) => Err(DeviceError::Lost("the device was dropped before a timeline was raised".into())),
        };
        for flight in state.flights.iter_mut().flat_map(|lane| lane.drain(..)) {
            flight.load.end(&flight.signals, lost(), None);
        }
        for entry in state.schedule.drain() {
            entry.rest.end(&entry.signals, lost(), None);
        }
    }

    /// A thread's work: ends the submissions of a lane as the device gets through with them.
    fn serve(&self, lane: Lane, pipelines: &Weak<Pipelines>) {
        loop {
            let state = self.state();
            match state.flights[lane as usize].front() {
                Some(flight) => {
                    let ticket = Ticket { lane, value: flight.ticket };
                    drop(state);
                    if self.wait_for(ticket, LOOK_UP) {
                        self.retire();
                    }
                }
                None if state.closing => return,
                None => {
                    let arrived = self.arrived[lane as usize].wait_timeout(state, LOOK_UP);
                    drop(arrived.unwrap_or_else(PoisonError::into_inner));
                }
            }
            if let (Lane::Compute, Some(pipelines)) = (lane, pipelines.upgrade()) {
                pipelines.save_if_due();
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the executor's threads are gone, and it waited for the device.
        self.semaphores.iter().for_each(|semaphore| unsafe { self.gpu.raw.destroy_semaphore(*semaphore, None) });
    }
}

/// Waits on the host until `counter` has `value`: on the device itself once the signal is handed over, so that no other thread
/// has to pass it on.
pub(crate) fn wait(executor: &Weak<Shared>, counter: &Counter, value: u64, limit: Duration) -> Result<()> {
    let mut patience = Patience::new(limit);
    loop {
        match (counter.progress(value), patience.slice(), executor.upgrade()) {
            (Progress::Reached, ..) => return Ok(()),
            (_, None, _) => return Err(DeviceError::Timeout { value, reached: counter.value(), waited: limit }),
            (Progress::Handed(ticket), Some(slice), Some(shared)) => {
                if shared.wait_for(ticket, slice) {
                    shared.retire();
                }
            }
            (_, Some(slice), _) => counter.sleep(value, slice),
        }
    }
}

/// The threads that end submissions; dropping it ends everything.
pub(crate) struct Executor {
    pub(crate) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Executor {
    pub(crate) fn new(gpu: &Arc<Gpu>, pipelines: &Arc<Pipelines>) -> Result<Arc<Self>> {
        let mut this = Self { shared: Arc::new(Shared::new(gpu)?), threads: Vec::new() };
        for lane in Lane::ALL {
            let (shared, pipelines) = (this.shared.clone(), Arc::downgrade(pipelines));
            let thread = std::thread::Builder::new()
                .name(format!("vulkan-{lane:?}").to_lowercase())
                .spawn(move || shared.serve(lane, &pipelines))
                .map_err(|e| DeviceError::Lost(format!("no thread for a queue: {e}")))?;
            this.threads.push(thread);
        }
        Ok(Arc::new(this))
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closing = true;
        // What the driver has is let run to its end; what is held back, nobody can let go any more.
        // SAFETY: the lock keeps others from the queues. A lost device refuses, and is idle.
        let _ = unsafe { self.shared.gpu.raw.device_wait_idle() };
        self.shared.retire_locked(&mut state);
        self.shared.end_all(&mut state);
        drop(state);
        self.shared.arrived.iter().for_each(Condvar::notify_all);
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to do.
            let _ = thread.join();
        }
    }
}

fn semaphore(gpu: &Gpu) -> Result<vk::Semaphore> {
    let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
    let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
    // SAFETY: the device is alive and has timelines.
    unsafe { gpu.raw.create_semaphore(&info, None) }.map_err(|e| driver("a semaphore", e))
}
