use crate::transfer::Fill;
use crate::transfer::blit::gate::{Room, Taken};
use crate::transfer::blit::queue::{Begun, BlitQueue, Copying, End, Job, Stage, Staging, Work};
use crate::transfer::bytes::{fill_directly, within_reach};
use crate::transfer::direction::Direction;
use mlx_serving_device::{Buffer, DeviceError, Point, Result, Storage};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The first thread: fills staging memory, or the destination itself, and submits copies.
pub(crate) struct Filler {
    pub queue: Arc<BlitQueue>,
    pub begun: Sender<Begun>,
}

impl Filler {
    pub(crate) fn run(self) {
        loop {
            let reached = |job: &Job| job.after.iter().all(Point::reached);
            let (room, job) = match self.queue.gate.take(reached) {
                Taken::Run(room, job) => (Some(room), job),
                Taken::Abandon(job) => (None, job),
                Taken::End => return,
            };
            let end = End {
                direction: job.work.direction(),
                bytes: job.work.bytes(),
                since: Instant::now(),
                point: job.point,
                outcome: job.outcome,
            };
            let Some(room) = room else {
                let closing = self.queue.closing.load(Ordering::Acquire);
                let why = if closing { "the engine was shut down" } else { "earlier copies hang" };
                end.tell(&self.queue, Err(DeviceError::CommandFailed(format!("{why} before this transfer began"))));
                continue;
            };
            let begin = || self.begin(job.work, &job.after, &end, &room);
            let stage = match catch_unwind(AssertUnwindSafe(begin)) {
                Ok(Ok(stage)) => stage,
                Ok(Err(error)) => Stage::Over(Err(error)),
                Err(_) => Stage::Over(Err(DeviceError::CommandFailed("filling the memory panicked".into()))),
            };
            // In order: the second thread may still be busy with the one before.
            let next = end.point.timeline.value() + 1 == end.point.value;
            match stage {
                // Room first: who learns of the end may ask for it at once.
                Stage::Over(result) if next => {
                    self.queue.gate.release(&room);
                    end.tell(&self.queue, result);
                }
                // The second thread ends after this one.
                stage => drop(self.begun.send(Begun { end, after: job.after, room, stage })),
            }
        }
    }

    fn begin(&self, work: Work, after: &[Point], end: &End, room: &Room) -> Result<Stage> {
        let queue = &self.queue;
        let need = queue.staged_bytes(&work);
        if within_reach(work.buffers()) {
            return match work {
                Work::Upload { to, fill } => {
                    queue.settle(after)?;
                    Ok(Stage::Over(queue.overlap.during(Direction::Upload, end.bytes, || fill_directly(&to, fill))))
                }
                Work::Download { from, sink } => Ok(Stage::Read(from, sink)),
            };
        }
        let staging = if room.range.is_empty() {
            let own = queue.allocate.allocate(need, Storage::Shared, "staging")?;
            Staging { buffer: (*own).clone(), _own: Some(own) }
        } else {
            let start = room.range.start;
            Staging { buffer: queue.staging(room.streamed, start..start + need)?, _own: None }
        };
        match work {
            Work::Upload { to, fill } => {
                let whole = staging.buffer.slice(0..end.bytes)?;
                let sent = queue.overlap.during(Direction::Upload, end.bytes, || self.fill(&whole, fill))?;
                let copying = self.submit(&to, staging, Direction::Upload, after, end)?;
                Ok(Stage::In(copying, to, sent))
            }
            Work::Download { from, sink } => {
                let copying = self.submit(&from, staging, Direction::Download, after, end)?;
                Ok(Stage::Out(copying, from, sink))
            }
        }
    }

    /// Fills staging memory; its checksum if it is to be compared.
    fn fill(&self, whole: &Buffer, fill: Fill) -> Result<Option<u32>> {
        if !self.queue.config.verify_checksums {
            return fill_directly(std::slice::from_ref(whole), fill).map(|()| None);
        }
        let sent = Arc::new(Mutex::new(0));
        let seen = sent.clone();
        let fill = move |bytes: &mut [u8]| {
            fill(bytes)?;
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = crc32fast::hash(bytes);
            Ok(())
        };
        fill_directly(std::slice::from_ref(whole), Box::new(fill))?;
        let sent = *sent.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(sent))
    }

    /// Submits a copy. It signals the transfer's point itself, unless checksums are compared first.
    fn submit(
        &self,
        parts: &[Buffer],
        staging: Staging,
        direction: Direction,
        after: &[Point],
        end: &End,
    ) -> Result<Copying> {
        let config = &self.queue.config;
        // A checksum is compared with copies of its own, which must not queue behind a copy that waits for their result.
        if !config.use_shared_events || config.verify_checksums {
            self.queue.settle(after)?;
        }
        let ready = after.iter().all(Point::reached);
        let signal = (!config.verify_checksums).then(|| end.point.clone());
        let whole = staging.buffer.slice(0..end.bytes)?;
        let submission = self.queue.copy(parts, &whole, direction, after, signal)?;
        let began = ready.then(|| self.queue.overlap.begin());
        Ok(Copying { submission, staging, began })
    }
}
