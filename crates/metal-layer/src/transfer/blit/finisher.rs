use crate::transfer::Sink;
use crate::transfer::blit::gate::Room;
use crate::transfer::blit::queue::{Begun, BlitQueue, Copying, End, Stage};
use crate::transfer::bytes::{drain_directly, total};
use crate::transfer::direction::Direction;
use mlx_serving_device::{Buffer, DeviceError, Point, Result, Status};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Interval at which copies that took too long are looked at.
const LOOK_UP: Duration = Duration::from_millis(20);

/// The second thread: waits for copies, compares checksums, hands over what was read, and reports how each transfer ended.
pub(crate) struct Finisher {
    queue: Arc<BlitQueue>,
    begun: Receiver<Begun>,
    /// Copies that took too long: their staging memory is not to be reused before they have ended.
    quarantine: Vec<(Copying, Room)>,
}

impl Finisher {
    pub(crate) fn new(queue: Arc<BlitQueue>, begun: Receiver<Begun>) -> Self {
        Self { queue, begun, quarantine: Vec::new() }
    }

    pub(crate) fn run(mut self) {
        while let Some(Begun { end, after, room, stage }) = self.next() {
            let (result, copying) = match stage {
                Stage::Over(result) => (result, None),
                Stage::Read(from, sink) => (self.read(&from, sink, &after), None),
                Stage::In(copying, to, sent) => {
                    let landed = self.land(&copying, &after, &end);
                    let result = self.end_upload(&copying.staging.buffer, &to, sent, landed);
                    (result, Some(copying))
                }
                Stage::Out(copying, from, sink) => {
                    let landed = self.land(&copying, &after, &end);
                    let result = self.end_download(&copying.staging.buffer, &from, sink, landed);
                    (result, Some(copying))
                }
            };
            match copying.filter(|copying| copying.submission.status() == Status::Pending) {
                Some(copying) => {
                    end.outcome.abandon(copying.submission.clone());
                    self.quarantine.push((copying, room));
                    self.queue.gate.set_quarantined(true);
                }
                None => self.queue.gate.release(&room),
            }
            end.tell(&self.queue, result.map_err(|error| self.late(error)));
            self.look_at_quarantine();
        }
    }

    /// The next transfer. Copies that took too long are looked at meanwhile: they may hold the room that the next one waits for.
    fn next(&mut self) -> Option<Begun> {
        while !self.quarantine.is_empty() {
            match self.begun.recv_timeout(LOOK_UP) {
                Ok(begun) => return Some(begun),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.look_at_quarantine(),
            }
        }
        self.begun.recv().ok()
    }

    /// A copy that takes too long has failed; the device has not, as far as anybody knows.
    fn late(&self, error: DeviceError) -> DeviceError {
        match error {
            DeviceError::Timeout { .. } => {
                let limit = self.queue.limit();
                DeviceError::CommandFailed(format!("a copy did not end within {limit:?}, blit_queue.timeout_ms"))
            }
            other => other,
        }
    }

    fn look_at_quarantine(&mut self) {
        if self.quarantine.is_empty() {
            return;
        }
        self.quarantine.retain(|(copying, room)| {
            let over = copying.submission.status() != Status::Pending;
            if over {
                self.queue.gate.release(room);
            }
            !over
        });
        self.queue.gate.set_quarantined(!self.quarantine.is_empty());
    }

    fn read(&self, from: &[Buffer], sink: Sink, after: &[Point]) -> Result<()> {
        self.queue.settle(after)?;
        self.queue.overlap.during(Direction::Download, total(from), || hand_over(from, sink))
    }

    /// Waits for a copy.
    fn land(&self, copying: &Copying, after: &[Point], end: &End) -> Result<()> {
        let began = match copying.began {
            Some(began) => began,
            None => {
                self.queue.settle(after)?;
                self.queue.overlap.begin()
            }
        };
        let landed = copying.submission.wait(self.queue.limit());
        self.queue.overlap.end(began, end.direction, end.bytes);
        landed
    }

    /// Copies out of `parts` once more and compares the checksum with the one `expected` of the first copy's staging memory; a copy
    /// that failed or arrived different is made once more.
    fn verify(
        &self,
        parts: &[Buffer],
        staging: &Buffer,
        direction: Direction,
        expected: impl Fn(&Buffer) -> Result<u32>,
        mut landed: Result<()>,
    ) -> Result<()> {
        let bytes = total(parts);
        let (first, second) = (staging.slice(0..bytes)?, staging.slice(bytes..2 * bytes)?);
        for again in [true, false] {
            landed = landed.and_then(|()| {
                self.copy_now(parts, &second, Direction::Download)?;
                self.compare(expected(&first)?, checksum(&second)?)
            });
            match &landed {
                Err(DeviceError::CommandFailed(_)) if again => landed = self.copy_now(parts, &first, direction),
                _ => break,
            }
        }
        landed
    }

    /// Ends a copy into the device; `sent` is the checksum to compare, if any.
    fn end_upload(&self, staging: &Buffer, to: &[Buffer], sent: Option<u32>, landed: Result<()>) -> Result<()> {
        match sent {
            None => landed,
            Some(sent) => self.verify(to, staging, Direction::Upload, |_| Ok(sent), landed),
        }
    }

    /// Ends a copy out of the device: gives the sink the bytes.
    fn end_download(&self, staging: &Buffer, from: &[Buffer], sink: Sink, mut landed: Result<()>) -> Result<()> {
        if self.queue.config.verify_checksums {
            landed = self.verify(from, staging, Direction::Download, checksum, landed);
        }
        landed?;
        hand_over(&[staging.slice(0..total(from))?], sink)
    }

    fn compare(&self, sent: u32, arrived: u32) -> Result<()> {
        if sent == arrived {
            return Ok(());
        }
        self.queue.note(|s| s.checksum_failures += 1);
        let message =
            format!("the bytes that arrived are not those that were sent (checksums {arrived:08x} and {sent:08x})");
        Err(DeviceError::CommandFailed(message))
    }

    fn copy_now(&self, parts: &[Buffer], whole: &Buffer, direction: Direction) -> Result<()> {
        self.queue.copy(parts, whole, direction, &[], None)?.wait(self.queue.limit())
    }
}

/// Gives `sink` the bytes of `from`. A panic of the sink fails the transfer, not the thread.
fn hand_over(from: &[Buffer], sink: Sink) -> Result<()> {
    catch_unwind(AssertUnwindSafe(|| drain_directly(from, sink)))
        .unwrap_or_else(|_| Err(DeviceError::CommandFailed("taking the bytes panicked".into())))
}

fn checksum(buffer: &Buffer) -> Result<u32> {
    Ok(crc32fast::hash(&buffer.to_vec::<u8>()?))
}
