use crate::allocate::Allocate;
use crate::frontier::Lane;
use crate::stats::BlitStats;
use crate::transfer::{Fill, Sink, Ticket, Transfer};
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Buffer, Device, DeviceError, Op, Point, Result, Storage};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a download waits for the device.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of one staging buffer at most.
const MAX_CHUNK: u64 = 64 << 20;

/// The plain way: the calling thread writes the bytes, and where the host does not reach the destination, a copy follows on the
/// compute queue.
#[derive(Debug)]
pub struct InlineTransfer {
    device: Arc<dyn Device>,
    allocate: Arc<dyn Allocate>,
    compute: Lane,
    stats: Mutex<BlitStats>,
}

impl InlineTransfer {
    /// Copies on the compute queue, whose submissions signal `compute`.
    pub fn new(device: Arc<dyn Device>, allocate: Arc<dyn Allocate>, compute: Lane) -> Self {
        Self { device, allocate, compute, stats: Mutex::default() }
    }

    /// Copies on the compute queue.
    fn copy(&self, from: &Buffer, to: &Buffer) -> Result<(Point, Arc<dyn mlx_serving_device::Submission>)> {
        let queue = self.device.compute_queue();
        let mut encoder = queue.encoder()?;
        encoder.record(Op::Copy(Copy { from: from.clone(), to: to.clone() }))?;
        let point = self.compute.issue();
        let submission = queue.submit(encoder.finish()?, &[], Some(point.clone()))?;
        Ok((point, submission))
    }

    fn note(&self, note: impl FnOnce(&mut BlitStats)) {
        note(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Transfer for InlineTransfer {
    fn upload(&self, to: &Buffer, fill: Fill) -> Result<Ticket> {
        let start = Instant::now();
        let mut fill = Some(fill);
        let mut filled = Ok(());
        let mut run = |bytes: &mut [u8]| {
            if let Some(fill) = fill.take() {
                filled = fill(bytes).map_err(DeviceError::CommandFailed);
            }
        };
        let ticket = if to.memory().storage() == Storage::Shared {
            to.lend(&mut run)?;
            Ticket::done(filled)
        } else {
            let staging = self.allocate.allocate(to.len(), Storage::Shared, "staging")?;
            staging.lend(&mut run)?;
            match filled {
                Err(error) => Ticket::done(Err(error)),
                Ok(()) => {
                    let (point, submission) = self.copy(&staging, to)?;
                    Ticket::submitted(point, submission)
                }
            }
        };
        self.note(|s| s.upload(to.len(), start.elapsed()));
        Ok(ticket)
    }

    fn download(&self, from: &Buffer, sink: Sink) -> Result<Ticket> {
        let start = Instant::now();
        let mut bytes = vec![0u8; from.len() as usize];
        if from.memory().storage() == Storage::Shared {
            self.compute.latest().wait(LIMIT)?;
            from.read(0, &mut bytes)?;
        } else {
            let staging = self.allocate.allocate(from.len(), Storage::Shared, "staging")?;
            let (_, submission) = self.copy(from, &staging)?;
            submission.wait(LIMIT)?;
            staging.read(0, &mut bytes)?;
        }
        let result = sink(&bytes).map_err(DeviceError::CommandFailed);
        self.note(|s| s.download(from.len(), start.elapsed()));
        Ok(Ticket::done(result))
    }

    fn max_chunk(&self) -> u64 {
        MAX_CHUNK
    }

    fn stats(&self) -> BlitStats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
