use crate::allocate::Allocate;
use crate::frontier::Track;
use crate::observe::stats::BlitStats;
use crate::transfer::bytes::{drain_directly, fill_directly, record_copies, total, within_reach};
use crate::transfer::direction::Direction;
use crate::transfer::{Fill, Sink, Ticket, Transfer};
use crate::wiring::Wiring;
use mlx_serving_device::{Buffer, Device, Point, Result, Storage, Submission};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time that a transfer waits for the device.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of one staging buffer at most.
const MAX_CHUNK: u64 = 64 << 20;

/// The plain way: the calling thread writes the bytes, and where the host does not reach the destination, a copy follows on the
/// compute queue.
#[derive(Debug)]
pub struct InlineTransfer {
    device: Arc<dyn Device>,
    allocate: Arc<dyn Allocate>,
    compute: Track,
    stats: Mutex<BlitStats>,
}

impl InlineTransfer {
    /// Copies on the compute queue, whose submissions signal `compute`.
    pub fn new(wiring: &Wiring, allocate: Arc<dyn Allocate>, compute: &Track) -> Self {
        Self { device: wiring.device.clone(), allocate, compute: compute.clone(), stats: Mutex::default() }
    }

    /// Copies on the compute queue, after `after`.
    fn copy(
        &self,
        parts: &[Buffer],
        staging: &Buffer,
        direction: Direction,
        after: &[Point],
    ) -> Result<(Point, Arc<dyn Submission>)> {
        let queue = self.device.compute_queue();
        let mut encoder = queue.encoder()?;
        record_copies(encoder.as_mut(), parts, staging, direction)?;
        let point = self.compute.issue();
        let submission = queue.submit(encoder.finish()?, after, Some(point.clone()))?;
        Ok((point, submission))
    }

    fn wait_for_compute(&self, after: &[Point]) -> Result<()> {
        after.iter().chain([&self.compute.latest()]).try_for_each(|point| point.wait(LIMIT))
    }

    /// [`Transfer::scatter`], after `after` too.
    pub(crate) fn scatter_after(&self, to: &[Buffer], fill: Fill, after: &[Point]) -> Result<Ticket> {
        let start = Instant::now();
        let ticket = if within_reach(to) {
            self.wait_for_compute(after)?;
            Ticket::done(fill_directly(to, fill))
        } else {
            let staging = self.allocate.allocate(total(to), Storage::Shared, "staging")?;
            match fill_directly(std::slice::from_ref(&*staging), fill) {
                Err(error) => Ticket::done(Err(error)),
                Ok(()) => {
                    let (point, submission) = self.copy(to, &staging, Direction::Upload, after)?;
                    Ticket::submitted(point, submission)
                }
            }
        };
        self.note(|s| s.upload(total(to), start.elapsed()));
        Ok(ticket)
    }

    /// [`Transfer::gather`], after `after` too.
    pub(crate) fn gather_after(&self, from: &[Buffer], sink: Sink, after: &[Point]) -> Result<Ticket> {
        let start = Instant::now();
        let result = if within_reach(from) {
            self.wait_for_compute(after)?;
            drain_directly(from, sink)
        } else {
            let staging = self.allocate.allocate(total(from), Storage::Shared, "staging")?;
            let (_, submission) = self.copy(from, &staging, Direction::Download, after)?;
            submission.wait(LIMIT)?;
            drain_directly(std::slice::from_ref(&*staging), sink)
        };
        self.note(|s| s.download(total(from), start.elapsed()));
        Ok(Ticket::done(result))
    }

    fn note(&self, note: impl FnOnce(&mut BlitStats)) {
        note(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Transfer for InlineTransfer {
    fn scatter(&self, to: &[Buffer], fill: Fill) -> Result<Ticket> {
        self.scatter_after(to, fill, &[])
    }

    fn gather(&self, from: &[Buffer], sink: Sink) -> Result<Ticket> {
        self.gather_after(from, sink, &[])
    }

    fn max_chunk(&self) -> u64 {
        MAX_CHUNK
    }

    fn stats(&self) -> BlitStats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
