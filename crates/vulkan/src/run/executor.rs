use super::clock::Clock;
use super::counter::{Counter, Progress, Ticket};
use super::dispatcher::{Dispatcher, Submissions};
use super::flight::{Ending, Load};
use super::handover::Handover;
use super::schedule::{Entry, Mark, Piece};
use crate::find::Gpu;
use crate::pipelines::Pipelines;
use crate::record::{Tape, VulkanCommands};
use ash::vk;
use mlx_serving_device::{DeviceError, Patience, QueueKind, Result};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait of a thread for the device before it looks around.
const LOOK_UP: Duration = Duration::from_secs(1);
/// Time for which the clocks are trusted to run alike.
const CALIBRATED: Duration = Duration::from_secs(1);

impl Dispatcher {
    /// Takes a command buffer; the driver gets it when its points allow.
    pub(crate) fn submit(
        &self,
        commands: VulkanCommands,
        mut waits: Vec<Mark>,
        pieces: Vec<(Vec<Mark>, Option<Tape>)>,
        signal: Option<Mark>,
    ) -> Result<Arc<Ending>> {
        self.gpu.alive()?;
        let VulkanCommands { queue, lease, held, recorder, launched, .. } = commands;
        let ending = Arc::<Ending>::default();
        let done = Mark { counter: ending.done.clone(), value: 1 };
        let pieces = pieces.into_iter().map(|(own, work)| {
            let waits = std::mem::take(&mut waits).into_iter().chain(own).collect();
            Piece { waits, work }
        });
        let load = Load {
            ending: ending.clone(),
            lease,
            held,
            recorder,
            launched,
            running: Vec::new(),
            after: 0,
            refused: None,
        };
        let entry =
            Entry { pieces: pieces.collect(), signals: [done].into_iter().chain(signal).collect(), payload: load };
        self.submissions.fetch_add(1, Relaxed);
        let mut pending = self.lock();
        pending.schedule.push(queue.kind, entry);
        self.pump_locked(&mut pending);
        Ok(ending)
    }

    /// Hands over what is ready.
    pub(super) fn pump(&self) {
        self.pump_locked(&mut self.lock());
    }

    fn pump_locked(&self, pending: &mut Submissions) {
        let mut schedule = std::mem::take(&mut pending.schedule);
        schedule.pump(&mut Handover { dispatcher: self, pending });
        pending.schedule = schedule;
        if self.gpu.alive().is_err() {
            self.end_all(pending);
        }
    }

    /// Waits until the device has come to `ticket`; false if `limit` was too short.
    fn wait_for(&self, ticket: Ticket, limit: Duration) -> bool {
        let (semaphores, values) = ([self.semaphores[ticket.queue as usize]], [ticket.value]);
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

    /// Ends everything that the device has finished.
    pub(super) fn retire(&self) {
        self.retire_locked(&mut self.lock());
    }

    fn retire_locked(&self, pending: &mut Submissions) {
        if let Err(why) = self.try_retire(pending) {
            self.lose_locked(pending, &why);
        }
    }

    /// Ends submissions in the order of handing over, so that what a submission waited for on the other queue has ended before it.
    fn try_retire(&self, pending: &mut Submissions) -> Result<(), String> {
        for queue in QueueKind::ALL {
            pending.reached[queue as usize] = self.reached(queue)?;
        }
        while let Some(queue) = pending.next_ended() {
            let Some(flight) = pending.flights[queue as usize].pop_front() else { break };
            if flight.load.after > pending.reached[queue.other() as usize] {
                // It ended after the other queue was asked, and what it waited for before that.
                pending.reached[queue.other() as usize] = self.reached(queue.other())?;
                pending.flights[queue as usize].push_front(flight);
                continue;
            }
            let ended = self.now();
            self.calibrate(&mut pending.clock, ended);
            let watch = &mut pending.watches[queue as usize];
            let times = watch.stop(&self.gpu, &mut pending.clock, &flight.load, ended);
            let outcome = flight.load.outcome();
            flight.load.end(&flight.signals, outcome, times);
        }
        Ok(())
    }

    /// Value that the device has reached on a queue.
    fn reached(&self, queue: QueueKind) -> Result<u64, String> {
        // SAFETY: the semaphore lives as long as `self`.
        let reached = unsafe { self.gpu.raw.get_semaphore_counter_value(self.semaphores[queue as usize]) };
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

    /// Marks the device as lost: everything in flight ends in that error, and so will everything to come.
    pub(crate) fn lose(&self, why: &str) {
        self.lose_locked(&mut self.lock(), why);
    }

    fn lose_locked(&self, pending: &mut Submissions, why: &str) {
        self.gpu.mark_lost(why);
        self.end_all(pending);
    }

    /// Ends everything in order: what the device had finished as it ended, the rest as lost.
    fn end_all(&self, pending: &mut Submissions) {
        // SAFETY: the lock keeps others from the queues. A lost device refuses, and is idle.
        let _ = unsafe { self.gpu.raw.device_wait_idle() };
        let lost = || match self.gpu.alive() {
            Err(error) => Err(error),
            Ok(()) => Err(DeviceError::Lost("the device was dropped before a timeline was raised".into())),
        };
        for flight in pending.flights.iter_mut().flat_map(|queue| queue.drain(..)) {
            flight.load.end(&flight.signals, lost(), None);
        }
        for entry in pending.schedule.drain() {
            entry.payload.end(&entry.signals, lost(), None);
        }
    }

    /// A thread's work: ends the submissions of a queue as the device finishes them.
    fn serve(&self, queue: QueueKind, pipelines: &Weak<Pipelines>) {
        loop {
            let pending = self.lock();
            match pending.flights[queue as usize].front() {
                Some(flight) => {
                    let ticket = Ticket { queue, value: flight.ticket };
                    drop(pending);
                    if self.wait_for(ticket, LOOK_UP) {
                        self.retire();
                    }
                }
                None if pending.closing => return,
                None => {
                    let arrived = self.arrived[queue as usize].wait_timeout(pending, LOOK_UP);
                    drop(arrived.unwrap_or_else(PoisonError::into_inner));
                }
            }
            if let (QueueKind::Compute, Some(pipelines)) = (queue, pipelines.upgrade()) {
                pipelines.save_if_due();
            }
        }
    }
}

/// Waits on the host until `counter` has `value`: on the device itself once the signal is handed over, so that no other thread
/// has to pass it on.
pub(super) fn wait(dispatcher: &Weak<Dispatcher>, counter: &Counter, value: u64, limit: Duration) -> Result<()> {
    let mut patience = Patience::new(limit);
    loop {
        match (counter.progress(value), patience.slice(), dispatcher.upgrade()) {
            (Progress::Reached, ..) => return Ok(()),
            (_, None, _) => return Err(DeviceError::Timeout { value, reached: counter.value(), waited: limit }),
            (Progress::Handed(ticket), Some(slice), Some(dispatcher)) => {
                if dispatcher.wait_for(ticket, slice) {
                    dispatcher.retire();
                }
            }
            (_, Some(slice), _) => counter.sleep(value, slice),
        }
    }
}

/// The threads that end submissions; dropping it ends everything.
pub(crate) struct Executor {
    pub(crate) dispatcher: Arc<Dispatcher>,
    threads: Vec<JoinHandle<()>>,
}

impl Executor {
    pub(crate) fn new(gpu: &Arc<Gpu>, pipelines: &Arc<Pipelines>) -> Result<Arc<Self>> {
        let mut this = Self { dispatcher: Arc::new(Dispatcher::new(gpu)?), threads: Vec::new() };
        for queue in QueueKind::ALL {
            let (dispatcher, pipelines) = (this.dispatcher.clone(), Arc::downgrade(pipelines));
            let thread = std::thread::Builder::new()
                .name(format!("vulkan-{queue:?}").to_lowercase())
                .spawn(move || dispatcher.serve(queue, &pipelines))
                .map_err(|e| DeviceError::Lost(format!("no thread for a queue: {e}")))?;
            this.threads.push(thread);
        }
        Ok(Arc::new(this))
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let mut pending = self.dispatcher.lock();
        pending.closing = true;
        // What the driver has runs to its end; what is held back, nobody can release any more.
        // SAFETY: the lock keeps others from the queues. A lost device refuses, and is idle.
        let _ = unsafe { self.dispatcher.gpu.raw.device_wait_idle() };
        self.dispatcher.retire_locked(&mut pending);
        self.dispatcher.end_all(&mut pending);
        drop(pending);
        self.dispatcher.arrived.iter().for_each(Condvar::notify_all);
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to do.
            let _ = thread.join();
        }
    }
}
