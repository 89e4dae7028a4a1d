//! Copies on the transfer queue beside the compute queue: one thread fills staging memory and submits copies, a second one ends them.

mod filler;
mod finisher;
mod gate;
mod overlap;
mod queue;

use crate::allocate::Allocate;
use crate::config::BlitQueueConfig;
use crate::frontier::Track;
use crate::observe::stats::BlitStats;
use crate::transfer::blit::filler::Filler;
use crate::transfer::blit::finisher::Finisher;
use crate::transfer::blit::queue::{BlitQueue, Tracks, Work, ring_bytes};
use crate::transfer::inline::InlineTransfer;
use crate::transfer::{Fill, Sink, Ticket, Transfer};
use crate::wiring::Wiring;
use mlx_serving_device::{Buffer, DeviceError, Result};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A chunk is this part of a staging ring at most, so that one is filled while others are copied.
const CHUNKS: u64 = 4;

/// Copies on the transfer queue while the compute queue runs, from a bounded ring of staging memory. One thread fills staging
/// memory and submits copies, a second one ends them. Where the host reaches the memory itself nothing is copied: the first
/// thread writes it, the second one reads it.
///
/// Transfers of one kind — uploads, downloads, streamed uploads — end in the order in which they were asked for. Uploads and
/// downloads come after everything submitted before them, among themselves too. When there is no room for one of them within the
/// time limit, it is made synchronous, on the compute queue.
#[derive(Debug)]
pub struct BlitCoordinator {
    queue: Arc<BlitQueue>,
    inline: InlineTransfer,
    threads: Vec<JoinHandle<()>>,
}

impl BlitCoordinator {
    /// Takes the staging memory, unless host and device share theirs, and starts the threads. `compute` is the track that
    /// submissions to the compute queue signal; the transfers' own tracks are added to the frontier.
    pub fn new(
        wiring: &Wiring,
        allocate: Arc<dyn Allocate>,
        compute: &Track,
        config: &BlitQueueConfig,
    ) -> Result<Self> {
        let track = || wiring.device.new_timeline().map(|timeline| wiring.frontier.track(timeline));
        let tracks = Tracks { compute: compute.clone(), uploads: track()?, downloads: track()?, streamed: track()? };
        let queue = Arc::new(BlitQueue::new(wiring, allocate.clone(), tracks, config));
        if !wiring.device.info().unified_memory {
            queue.staging(true, 0..0)?;
        }
        let (begun, ends) = mpsc::channel();
        let (filler, finisher) = (Filler { queue: queue.clone(), begun }, Finisher::new(queue.clone(), ends));
        let mut coordinator =
            Self { queue, inline: InlineTransfer::new(wiring, allocate, compute), threads: Vec::new() };
        coordinator.start("blit-fill", move || filler.run())?;
        coordinator.start("blit-finish", move || finisher.run())?;
        Ok(coordinator)
    }

    /// Counts anew. A transfer in flight counts when it ends.
    pub fn reset_statistics(&self) {
        self.queue.reset_statistics();
    }

    fn start(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(run);
        self.threads.push(thread.map_err(|e| DeviceError::Lost(format!("no thread for transfers: {e}")))?);
        Ok(())
    }

    /// Queues what is due; returns it when there was no room in time.
    fn put(&self, work: Work) -> Result<Ticket, Work> {
        let queue = &self.queue;
        // While it is stalled, one transfer after the other must not wait for as long again.
        let limit = if self.fallen_back().is_some() { Duration::ZERO } else { queue.limit() };
        let track = queue.tracks.due(work.direction());
        let admit = |work| queue.admit(work, track, queue.tracks.before());
        let put = queue.gate.put(queue.room_for(&work), limit, work, admit);
        queue.note_room(put.is_ok());
        let (ticket, waited) = put?;
        if let Some(waited) = waited {
            queue.note(|s| s.sync_wait(waited));
        }
        Ok(ticket)
    }
}

impl Transfer for BlitCoordinator {
    fn scatter(&self, to: &[Buffer], fill: Fill) -> Result<Ticket> {
        match self.put(Work::Upload { to: to.to_vec(), fill }) {
            Ok(ticket) => Ok(ticket),
            Err(work) => self.run_synchronously(work),
        }
    }

    fn gather(&self, from: &[Buffer], sink: Sink) -> Result<Ticket> {
        match self.put(Work::Download { from: from.to_vec(), sink }) {
            Ok(ticket) => Ok(ticket),
            Err(work) => self.run_synchronously(work),
        }
    }

    fn stream(&self, to: &Buffer, fill: Fill) -> Result<Ticket> {
        let queue = &self.queue;
        let work = Work::Upload { to: vec![to.clone()], fill };
        Ok(queue.gate.stream(queue.room_for(&work), || queue.admit(work, &queue.tracks.streamed, Vec::new())))
    }

    fn max_chunk(&self) -> u64 {
        let copies = if self.queue.config.verify_checksums { 2 } else { 1 };
        ring_bytes(&self.queue.config) / CHUNKS / copies
    }

    fn fallen_back(&self) -> Option<String> {
        self.queue.stalled()
    }

    fn stats(&self) -> BlitStats {
        self.queue.stats()
    }
}

impl BlitCoordinator {
    /// The plain way, after the transfers in flight.
    fn run_synchronously(&self, work: Work) -> Result<Ticket> {
        if !self.queue.policy.graceful {
            let reason = self.fallen_back().unwrap_or_else(|| "no room in the staging ring".into());
            return Err(DeviceError::CommandFailed(format!("{reason}, and graceful_fallback is off")));
        }
        let (direction, bytes) = (work.direction(), work.bytes());
        let (after, began) = (self.queue.tracks.before(), Instant::now());
        let ticket = match work {
            Work::Upload { to, fill } => self.inline.scatter_after(&to, fill, &after),
            Work::Download { from, sink } => self.inline.gather_after(&from, sink, &after),
        }?;
        self.queue.note(|s| direction.count(s, bytes, began.elapsed()));
        Ok(ticket)
    }
}

impl Drop for BlitCoordinator {
    /// Carries out what is due; what is streamed and has not begun fails.
    fn drop(&mut self) {
        self.queue.closing.store(true, Ordering::Release);
        self.queue.gate.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the transfers panicked");
            }
        }
    }
}
