//! Copies on the transfer queue beside the compute queue: one thread fills staging memory and submits copies, a second one ends them.

pub(crate) mod gate;
pub(crate) mod overlap;
pub(crate) mod worker;

use crate::allocate::{Allocate, Allocation};
use crate::config::{BlitQueueConfig, FallbackPolicy};
use crate::frontier::{Frontier, Lane};
use crate::observe::metrics::LayerMetrics;
use crate::observe::stats::BlitStats;
use crate::transfer::blit::gate::Gate;
use crate::transfer::blit::overlap::Overlap;
use crate::transfer::blit::worker::{Filler, Finisher, Job, Work};
use crate::transfer::inline::{InlineTransfer, within_reach};
use crate::transfer::{Fill, Outcome, Sink, Ticket, Transfer};
use mlx_serving_device::{Buffer, Device, DeviceError, Patience, Point, Result, Storage};
use mlx_serving_metrics::Histogram;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A chunk is this part of a staging ring at most, so that one is filled while others are copied.
const CHUNKS: u64 = 4;
/// Time that a transfer waits for the steps that it comes after.
const STEP_LIMIT: Duration = Duration::from_secs(600);

/// Copies on the transfer queue while the compute queue runs, from a bounded ring of staging memory. One thread fills staging
/// memory and submits copies, a second one ends them. Where the host reaches the memory itself nothing is copied: the first
/// thread writes it, the second one reads it.
///
/// Transfers of one kind — uploads, downloads, streamed uploads — end in the order in which they were asked for. Uploads and
/// downloads come after everything submitted before them, among themselves too. When there is no room for one of them within the
/// time limit, it is made synchronous, on the compute queue.
#[derive(Debug)]
pub struct BlitCoordinator {
    shared: Arc<Shared>,
    inline: InlineTransfer,
    threads: Vec<JoinHandle<()>>,
}

/// State that both threads and the callers use.
#[derive(Debug)]
pub(crate) struct Shared {
    pub device: Arc<dyn Device>,
    pub allocate: Arc<dyn Allocate>,
    pub config: BlitQueueConfig,
    pub gate: Gate<Job>,
    pub overlap: Overlap,
    pub closing: AtomicBool,
    lanes: Lanes,
    /// The due transfers' ring, then the streamed ones'.
    staging: Mutex<Option<Allocation>>,
    pending: AtomicUsize,
    stats: Mutex<BlitStats>,
    /// Seconds of uploads and of downloads.
    durations: [Histogram; 2],
    policy: OnceLock<FallbackPolicy>,
    /// Reason for synchronous transfers: there was no room in time, and none since.
    stalled: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Lanes {
    compute: Lane,
    uploads: Lane,
    downloads: Lane,
    streamed: Lane,
}

impl Lanes {
    /// Points that a transfer which is asked for now comes after.
    fn before(&self) -> Vec<Point> {
        let lanes = [&self.compute, &self.uploads, &self.downloads];
        lanes.into_iter().map(Lane::latest).filter(|point| !point.reached()).collect()
    }
}

impl BlitCoordinator {
    /// Takes the staging memory, unless host and device share theirs, and starts the threads. `compute` is the lane that
    /// submissions to the compute queue signal; the transfers' own lanes are added to `frontier`. Durations go to `metrics`.
    pub fn new(
        device: Arc<dyn Device>,
        allocate: Arc<dyn Allocate>,
        frontier: &Frontier,
        compute: &Lane,
        config: &BlitQueueConfig,
        metrics: &LayerMetrics,
    ) -> Result<Self> {
        let lane = || device.new_timeline().map(|timeline| frontier.lane(timeline));
        let lanes = Lanes { compute: compute.clone(), uploads: lane()?, downloads: lane()?, streamed: lane()? };
        let places = config.max_pending_ops.max(1);
        let shared = Arc::new(Shared {
            gate: Gate::new(ring_bytes(config), places.div_ceil(2)),
            overlap: Overlap::new(device.clone()),
            closing: AtomicBool::new(false),
            lanes,
            staging: Mutex::default(),
            pending: AtomicUsize::new(0),
            stats: Mutex::default(),
            policy: OnceLock::new(),
            stalled: Mutex::default(),
            device: device.clone(),
            allocate: allocate.clone(),
            config: config.clone(),
            durations: [metrics.blit_upload.clone(), metrics.blit_download.clone()],
        });
        if !device.info().unified_memory {
            shared.staging(true, 0..0)?;
        }
        let (begun, ends) = mpsc::channel();
        let (filler, finisher) = (Filler { shared: shared.clone(), begun }, Finisher::new(shared.clone(), ends));
        let mut coordinator =
            Self { shared, inline: InlineTransfer::new(device, allocate, compute.clone()), threads: Vec::new() };
        coordinator.start("blit-fill", move || filler.run())?;
        coordinator.start("blit-finish", move || finisher.run())?;
        Ok(coordinator)
    }

    /// Sets what happens to a transfer that there is no room for; without this, it is made synchronous and nothing is logged.
    pub fn set_fallback(&self, policy: FallbackPolicy) {
        // Whoever comes second changes nothing.
        let _ = self.shared.policy.set(policy);
    }

    fn start(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(run);
        self.threads.push(thread.map_err(|e| DeviceError::Lost(format!("no thread for transfers: {e}")))?);
        Ok(())
    }

    /// Queues what is due; gives it back when there was no room in time.
    fn put(&self, work: Work) -> Result<Ticket, Work> {
        let shared = &self.shared;
        // While it is stalled, one transfer after the other must not wait for as long again.
        let limit = if self.fallen_back().is_some() { Duration::ZERO } else { shared.limit() };
        let lane = if work.uploads() { &shared.lanes.uploads } else { &shared.lanes.downloads };
        let admit = |work| shared.admit(work, lane, shared.lanes.before());
        let put = shared.gate.put(shared.room_for(&work), limit, work, admit);
        shared.note_room(put.is_ok());
        let (ticket, waited) = put?;
        if let Some(waited) = waited {
            shared.note(|s| s.sync_wait(waited));
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
        let shared = &self.shared;
        let work = Work::Upload { to: vec![to.clone()], fill };
        Ok(shared.gate.stream(shared.room_for(&work), || shared.admit(work, &shared.lanes.streamed, Vec::new())))
    }

    fn max_chunk(&self) -> u64 {
        let copies = if self.shared.config.verify_checksums { 2 } else { 1 };
        ring_bytes(&self.shared.config) / CHUNKS / copies
    }

    fn fallen_back(&self) -> Option<String> {
        self.shared.stalled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stats(&self) -> BlitStats {
        let stats = self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        BlitStats {
            pending_operations: self.shared.pending.load(Ordering::Relaxed),
            overlap_ratio: if self.shared.config.track_metrics { self.shared.overlap.ratio() } else { 0.0 },
            ..stats
        }
    }
}

impl BlitCoordinator {
    /// The plain way, after the transfers under way.
    fn run_synchronously(&self, work: Work) -> Result<Ticket> {
        if self.shared.policy.get().is_some_and(|policy| !policy.graceful) {
            let reason = self.fallen_back().unwrap_or_else(|| "no room in the staging ring".into());
            return Err(DeviceError::CommandFailed(format!("{reason}, and graceful_fallback is off")));
        }
        let (uploads, bytes) = (work.uploads(), work.bytes());
        let (after, began) = (self.shared.lanes.before(), Instant::now());
        let ticket = match work {
            Work::Upload { to, fill } => self.inline.scatter_after(&to, fill, &after),
            Work::Download { from, sink } => self.inline.gather_after(&from, sink, &after),
        }?;
        self.shared
            .note(|s| if uploads { s.upload(bytes, began.elapsed()) } else { s.download(bytes, began.elapsed()) });
        Ok(ticket)
    }
}

impl Drop for BlitCoordinator {
    /// Carries out what is due; what is streamed and has not begun fails.
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.gate.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the transfers panicked");
            }
        }
    }
}

impl Shared {
    /// Makes a job of `work` on `lane`, with the ticket that reports its end.
    fn admit(&self, work: Work, lane: &Lane, after: Vec<Point>) -> (Job, Ticket) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        let (point, outcome) = (lane.issue(), Arc::new(Outcome::default()));
        let seen = self.config.use_shared_events.then(|| point.clone());
        (Job { work, after, point, outcome: outcome.clone() }, Ticket::pending(seen, outcome))
    }

    /// Bytes of the staging ring that `work` needs: none where nothing is copied, or where it is too long for the ring and gets
    /// memory of its own.
    fn room_for(&self, work: &Work) -> u64 {
        let need = self.staged_bytes(work);
        if need > ring_bytes(&self.config) { 0 } else { need }
    }

    /// Bytes of staging memory for `work`: twice its length where a second copy is made to compare.
    pub(crate) fn staged_bytes(&self, work: &Work) -> u64 {
        let copies = if self.config.verify_checksums { 2 } else { 1 };
        if within_reach(work.buffers()) { 0 } else { copies * work.bytes() }
    }

    /// A range of the staging memory of a ring.
    pub(crate) fn staging(&self, streamed: bool, range: Range<u64>) -> Result<Buffer> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = ring_bytes(&self.config);
        let memory = match &mut *staging {
            Some(memory) => memory,
            none => none.insert(self.allocate.allocate(2 * ring, Storage::Shared, "staging")?),
        };
        let start = if streamed { ring } else { 0 };
        memory.slice(start + range.start..start + range.end)
    }

    /// Blocks until all of `points` are reached. Steps may be long; once the coordinator is being dropped nothing is.
    pub(crate) fn settle(&self, points: &[Point]) -> Result<()> {
        const LOOK_UP: Duration = Duration::from_millis(50);
        for point in points {
            let (mut patience, mut closing) = (Patience::new(STEP_LIMIT), None);
            while let Err(error) = point.wait(LOOK_UP) {
                let closed = self.closing.load(Ordering::Acquire)
                    && closing.get_or_insert_with(|| Patience::new(self.limit())).slice().is_none();
                if closed || patience.slice().is_none() || !matches!(error, DeviceError::Timeout { .. }) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Notes if there was room for a transfer in time, which decides how the next one is made.
    fn note_room(&self, found: bool) {
        let mut stalled = self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        if found {
            *stalled = None;
            return;
        }
        self.note(|s| s.fallback_events += 1);
        if stalled.is_none() {
            let reason = format!("no room in the staging ring within timeout_ms, {} ms", self.config.timeout_ms);
            if self.policy.get().is_some_and(|policy| policy.log) {
                tracing::warn!(reason, "the blit queue is full; transfers are synchronous until there is room");
            }
            *stalled = Some(reason);
        }
    }

    /// A copy that takes longer has failed.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_millis(self.config.timeout_ms)
    }

    /// Notes the end of a transfer.
    pub(crate) fn end(&self, uploads: bool, bytes: u64, took: Duration) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
        self.note_end(uploads, bytes, took);
    }

    fn note_end(&self, uploads: bool, bytes: u64, took: Duration) {
        let [upload, download] = &self.durations;
        self.note(|s| {
            if uploads {
                s.upload(bytes, took)
            } else {
                s.download(bytes, took)
            }
            if uploads { upload } else { download }.observe(took.as_secs_f64());
        });
    }

    pub(crate) fn note(&self, note: impl FnOnce(&mut BlitStats)) {
        if self.config.track_metrics {
            note(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Bytes of each of the two rings.
fn ring_bytes(config: &BlitQueueConfig) -> u64 {
    (config.staging_buffer_size_mb << 20) / 2
}
