//! State of the blit queue that its callers and its two threads share, and what passes between them.

use crate::allocate::{Allocate, Allocation};
use crate::config::{BlitQueueConfig, FallbackPolicy};
use crate::frontier::Track;
use crate::observe::metrics::LayerMetrics;
use crate::observe::stats::BlitStats;
use crate::transfer::blit::gate::{Gate, Room};
use crate::transfer::blit::overlap::{Overlap, Reading};
use crate::transfer::bytes::{record_copies, total, within_reach};
use crate::transfer::direction::Direction;
use crate::transfer::{Fill, Outcome, Sink, Ticket};
use crate::wiring::Wiring;
use mlx_serving_device::{Buffer, Device, DeviceError, Patience, Point, Result, Storage, Submission};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time that a transfer waits for the steps that it comes after.
const STEP_LIMIT: Duration = Duration::from_secs(600);

/// Order, staging memory and counters of the transfers.
#[derive(Debug)]
pub(crate) struct BlitQueue {
    pub device: Arc<dyn Device>,
    pub allocate: Arc<dyn Allocate>,
    pub config: BlitQueueConfig,
    pub gate: Gate<Job>,
    pub overlap: Overlap,
    pub closing: AtomicBool,
    pub tracks: Tracks,
    /// The due transfers' ring, then the streamed ones'.
    staging: Mutex<Option<Allocation>>,
    pending: AtomicUsize,
    stats: Mutex<BlitStats>,
    metrics: LayerMetrics,
    pub policy: FallbackPolicy,
    /// Reason for synchronous transfers: there was no room in time, and none since.
    stalled: Mutex<Option<String>>,
}

/// Timelines of the compute queue and of the three kinds of transfers.
#[derive(Debug)]
pub(crate) struct Tracks {
    pub compute: Track,
    pub uploads: Track,
    pub downloads: Track,
    pub streamed: Track,
}

impl Tracks {
    /// The track of uploads or of downloads.
    pub(crate) fn due(&self, direction: Direction) -> &Track {
        match direction {
            Direction::Upload => &self.uploads,
            Direction::Download => &self.downloads,
        }
    }

    /// Points that a transfer which is asked for now comes after.
    pub(crate) fn before(&self) -> Vec<Point> {
        let tracks = [&self.compute, &self.uploads, &self.downloads];
        tracks.into_iter().map(Track::latest).filter(|point| !point.reached()).collect()
    }
}

impl BlitQueue {
    /// State without staging memory, which the first transfer takes, or who calls [`Self::staging`] before.
    pub(crate) fn new(wiring: &Wiring, allocate: Arc<dyn Allocate>, tracks: Tracks, config: &BlitQueueConfig) -> Self {
        let places = config.max_pending_ops.max(1);
        Self {
            gate: Gate::new(ring_bytes(config), places.div_ceil(2)),
            overlap: Overlap::new(wiring.device.clone(), wiring.intervals.clone()),
            closing: AtomicBool::new(false),
            tracks,
            staging: Mutex::default(),
            pending: AtomicUsize::new(0),
            stats: Mutex::default(),
            policy: wiring.policy,
            stalled: Mutex::default(),
            device: wiring.device.clone(),
            allocate,
            config: config.clone(),
            metrics: wiring.metrics.clone(),
        }
    }

    /// Makes a job of `work` on `track`, with the ticket that reports its end.
    pub(crate) fn admit(&self, work: Work, track: &Track, after: Vec<Point>) -> (Job, Ticket) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        let (point, outcome) = (track.issue(), Arc::new(Outcome::default()));
        let seen = self.config.use_shared_events.then(|| point.clone());
        (Job { work, after, point, outcome: outcome.clone() }, Ticket::pending(seen, outcome))
    }

    /// Bytes of the staging ring that `work` needs: none where nothing is copied, or where it is too long for the ring and gets
    /// memory of its own.
    pub(crate) fn room_for(&self, work: &Work) -> u64 {
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
    pub(crate) fn note_room(&self, found: bool) {
        let mut stalled = self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        if found {
            *stalled = None;
            return;
        }
        self.note(|s| s.fallback_events += 1);
        if stalled.is_none() {
            let reason = format!("no room in the staging ring within timeout_ms, {} ms", self.config.timeout_ms);
            if self.policy.log {
                tracing::warn!(reason, "the blit queue is full; transfers are synchronous until there is room");
            }
            *stalled = Some(reason);
        }
    }

    /// Reason for synchronous transfers now.
    pub(crate) fn stalled(&self) -> Option<String> {
        self.stalled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counters.
    pub(crate) fn stats(&self) -> BlitStats {
        let stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        BlitStats {
            pending_operations: self.pending.load(Ordering::Relaxed),
            overlap_ratio: if self.config.track_metrics { self.overlap.ratio() } else { 0.0 },
            ..stats
        }
    }

    /// Counts anew; what is in flight stays so.
    pub(crate) fn reset_statistics(&self) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = BlitStats::default();
        self.overlap.reset();
    }

    /// A copy that takes longer has failed.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_millis(self.config.timeout_ms)
    }

    /// Notes the end of a transfer.
    fn end(&self, direction: Direction, bytes: u64, took: Duration) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
        self.note(|s| {
            direction.count(s, bytes, took);
            let seconds = match direction {
                Direction::Upload => &self.metrics.blit_upload,
                Direction::Download => &self.metrics.blit_download,
            };
            seconds.observe(took.as_secs_f64());
        });
    }

    /// Notes something in the counters, unless they are off.
    pub(crate) fn note(&self, note: impl FnOnce(&mut BlitStats)) {
        if self.config.track_metrics {
            note(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Copies between `parts` and `whole` on the transfer queue.
    pub(crate) fn copy(
        &self,
        parts: &[Buffer],
        whole: &Buffer,
        direction: Direction,
        after: &[Point],
        signal: Option<Point>,
    ) -> Result<Arc<dyn Submission>> {
        let transfer = self.device.transfer_queue();
        let mut encoder = transfer.encoder()?;
        record_copies(encoder.as_mut(), parts, whole, direction)?;
        transfer.submit(encoder.finish()?, after, signal)
    }
}

/// Bytes of each of the two rings.
pub(crate) fn ring_bytes(config: &BlitQueueConfig) -> u64 {
    (config.staging_buffer_size_mb << 20) / 2
}

/// Bytes to move.
pub(crate) enum Work {
    Upload { to: Vec<Buffer>, fill: Fill },
    Download { from: Vec<Buffer>, sink: Sink },
}

impl Work {
    pub(crate) fn direction(&self) -> Direction {
        match self {
            Work::Upload { .. } => Direction::Upload,
            Work::Download { .. } => Direction::Download,
        }
    }

    pub(crate) fn buffers(&self) -> &[Buffer] {
        match self {
            Work::Upload { to, .. } => to,
            Work::Download { from, .. } => from,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        total(self.buffers())
    }
}

/// A transfer that was asked for.
pub(crate) struct Job {
    pub work: Work,
    /// Points that the job comes after.
    pub after: Vec<Point>,
    /// Reached when the job has ended.
    pub point: Point,
    pub outcome: Arc<Outcome>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job({} bytes, point {})", self.work.bytes(), self.point.value)
    }
}

/// Remainder of a transfer once the first thread is done with it.
pub(crate) enum Stage {
    /// Ended; all that is left is to report how.
    Over(Result<()>),
    /// The host reads memory that it reaches.
    Read(Vec<Buffer>, Sink),
    /// A copy into the device, with the checksum of what was sent if it is to be compared.
    In(Copying, Vec<Buffer>, Option<u32>),
    /// A copy out of the device.
    Out(Copying, Vec<Buffer>, Sink),
}

/// A copy in flight.
pub(crate) struct Copying {
    pub submission: Arc<dyn Submission>,
    pub staging: Staging,
    /// Begin of the copy, if its time counts already.
    pub began: Option<Reading>,
}

/// Staging memory: a range of the ring's, or memory of its own for what is longer than the ring.
pub(crate) struct Staging {
    pub buffer: Buffer,
    pub _own: Option<Allocation>,
}

/// A transfer between the two threads.
pub(crate) struct Begun {
    pub end: End,
    pub after: Vec<Point>,
    pub room: Room,
    pub stage: Stage,
}

/// Reporter of a transfer's end.
#[derive(Clone)]
pub(crate) struct End {
    pub direction: Direction,
    pub bytes: u64,
    pub since: Instant,
    pub point: Point,
    pub outcome: Arc<Outcome>,
}

impl End {
    /// The result first: who sees the point must not find the transfer pending for long.
    pub(crate) fn tell(&self, queue: &BlitQueue, result: Result<()>) {
        queue.end(self.direction, self.bytes, self.since.elapsed());
        self.outcome.set(result);
        self.point.timeline.signal(self.point.value);
    }
}
