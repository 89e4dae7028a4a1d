//! The two threads of the [`crate::BlitCoordinator`].

use crate::allocate::Allocation;
use crate::transfer::blit::Shared;
use crate::transfer::blit::gate::{Room, Taken};
use crate::transfer::inline::{drain_directly, fill_directly, record_copies, total, within_reach};
use crate::transfer::{Fill, Outcome, Sink};
use mlx_serving_device::{Buffer, DeviceError, Point, Result, Status, Storage, Submission};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Interval at which copies that took too long are looked at.
const LOOK_UP: Duration = Duration::from_millis(20);

/// Bytes to move.
pub(crate) enum Work {
    Upload { to: Vec<Buffer>, fill: Fill },
    Download { from: Vec<Buffer>, sink: Sink },
}

impl Work {
    pub(crate) fn uploads(&self) -> bool {
        matches!(self, Work::Upload { .. })
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
    /// Points that it comes after.
    pub after: Vec<Point>,
    /// Reached when it has ended.
    pub point: Point,
    pub outcome: Arc<Outcome>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job({} bytes, point {})", self.work.bytes(), self.point.value)
    }
}

/// Rest of a transfer once the first thread is done with it.
enum Stage {
    /// Nothing but to report how it ended.
    Over(Result<()>),
    /// The host reads memory that it reaches.
    Read(Vec<Buffer>, Sink),
    /// A copy into the device, with the checksum of what was sent if it is to be compared.
    In(Copying, Vec<Buffer>, Option<u32>),
    /// A copy out of the device.
    Out(Copying, Vec<Buffer>, Sink),
}

struct Copying {
    submission: Arc<dyn Submission>,
    staging: Staging,
    /// Its time counts already.
    counted: bool,
}

/// Staging memory: a range of the ring's, or memory of its own for what is longer than the ring.
struct Staging {
    buffer: Buffer,
    _own: Option<Allocation>,
}

/// A transfer between the two threads.
pub(crate) struct Begun {
    end: End,
    after: Vec<Point>,
    room: Room,
    stage: Stage,
}

/// Reporter of a transfer's end.
#[derive(Clone)]
struct End {
    uploads: bool,
    bytes: u64,
    since: Instant,
    point: Point,
    outcome: Arc<Outcome>,
}

impl End {
    /// The result first: who sees the point must not find the transfer pending for long.
    fn tell(&self, shared: &Shared, result: Result<()>) {
        shared.end(self.uploads, self.bytes, self.since.elapsed());
        self.outcome.set(result);
        self.point.timeline.signal(self.point.value);
    }
}

/// The first thread: fills staging memory, or the destination itself, and submits copies.
pub(crate) struct Filler {
    pub shared: Arc<Shared>,
    pub begun: Sender<Begun>,
}

impl Filler {
    pub(crate) fn run(self) {
        loop {
            let reached = |job: &Job| job.after.iter().all(Point::reached);
            let (room, job) = match self.shared.gate.take(reached) {
                Taken::Run(room, job) => (Some(room), job),
                Taken::Abandon(job) => (None, job),
                Taken::End => return,
            };
            let end = End {
                uploads: job.work.uploads(),
                bytes: job.work.bytes(),
                since: Instant::now(),
                point: job.point,
                outcome: job.outcome,
            };
            let Some(room) = room else {
                let closing = self.shared.closing.load(Ordering::Acquire);
                let why = if closing { "the engine was shut down" } else { "earlier copies hang" };
                end.tell(&self.shared, Err(DeviceError::CommandFailed(format!("{why} before this transfer began"))));
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
                    self.shared.gate.give_back(&room);
                    end.tell(&self.shared, result);
                }
                // The second thread ends after this one.
                stage => drop(self.begun.send(Begun { end, after: job.after, room, stage })),
            }
        }
    }

    fn begin(&self, work: Work, after: &[Point], end: &End, room: &Room) -> Result<Stage> {
        let shared = &self.shared;
        let need = shared.staged_bytes(&work);
        if within_reach(work.buffers()) {
            return match work {
                Work::Upload { to, fill } => {
                    shared.settle(after)?;
                    Ok(Stage::Over(shared.overlap.during(|| fill_directly(&to, fill))))
                }
                Work::Download { from, sink } => Ok(Stage::Read(from, sink)),
            };
        }
        let staging = if room.range.is_empty() {
            let own = shared.allocate.allocate(need, Storage::Shared, "staging")?;
            Staging { buffer: (*own).clone(), _own: Some(own) }
        } else {
            let start = room.range.start;
            Staging { buffer: shared.staging(room.streamed, start..start + need)?, _own: None }
        };
        match work {
            Work::Upload { to, fill } => {
                let whole = staging.buffer.slice(0..end.bytes)?;
                let sent = shared.overlap.during(|| self.fill(&whole, fill))?;
                let copying = self.submit(&to, staging, true, after, end)?;
                Ok(Stage::In(copying, to, sent))
            }
            Work::Download { from, sink } => {
                let copying = self.submit(&from, staging, false, after, end)?;
                Ok(Stage::Out(copying, from, sink))
            }
        }
    }

    /// Fills staging memory; its checksum if it is to be compared.
    fn fill(&self, whole: &Buffer, fill: Fill) -> Result<Option<u32>> {
        if !self.shared.config.verify_checksums {
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
        to_parts: bool,
        after: &[Point],
        end: &End,
    ) -> Result<Copying> {
        let config = &self.shared.config;
        // A checksum is compared with copies of its own, which must not queue behind a copy that waits for their result.
        if !config.use_shared_events || config.verify_checksums {
            self.shared.settle(after)?;
        }
        let counted = after.iter().all(Point::reached);
        let signal = (!config.verify_checksums).then(|| end.point.clone());
        let whole = staging.buffer.slice(0..end.bytes)?;
        let submission = self.shared.copy(parts, &whole, to_parts, after, signal)?;
        if counted {
            self.shared.overlap.begin();
        }
        Ok(Copying { submission, staging, counted })
    }
}

/// The second thread: waits for copies, compares checksums, hands over what was read, and reports how each transfer ended.
pub(crate) struct Finisher {
    shared: Arc<Shared>,
    begun: Receiver<Begun>,
    /// Copies that took too long: their staging memory is not to be reused before they have ended.
    stuck: Vec<(Copying, Room)>,
}

impl Finisher {
    pub(crate) fn new(shared: Arc<Shared>, begun: Receiver<Begun>) -> Self {
        Self { shared, begun, stuck: Vec::new() }
    }

    pub(crate) fn run(mut self) {
        while let Some(Begun { end, after, room, stage }) = self.next() {
            let (result, copying) = match stage {
                Stage::Over(result) => (result, None),
                Stage::Read(from, sink) => (self.read(&from, sink, &after), None),
                Stage::In(copying, to, sent) => {
                    let landed = self.land(&copying, &after);
                    let result = match sent {
                        None => landed,
                        Some(sent) => self.compare_in(&copying.staging.buffer, &to, sent, landed),
                    };
                    (result, Some(copying))
                }
                Stage::Out(copying, from, sink) => {
                    let landed = self.land(&copying, &after);
                    let result = self.hand_over(&copying.staging.buffer, &from, sink, end.bytes, landed);
                    (result, Some(copying))
                }
            };
            match copying.filter(|copying| copying.submission.status() == Status::Pending) {
                Some(copying) => {
                    end.outcome.abandon(copying.submission.clone());
                    self.stuck.push((copying, room));
                    self.shared.gate.set_stuck(true);
                }
                None => self.shared.gate.give_back(&room),
            }
            end.tell(&self.shared, result.map_err(|error| self.late(error)));
            self.look_at_stuck();
        }
    }

    /// The next transfer. Copies that took too long are looked at meanwhile: they may hold the room that the next one waits for.
    fn next(&mut self) -> Option<Begun> {
        while !self.stuck.is_empty() {
            match self.begun.recv_timeout(LOOK_UP) {
                Ok(begun) => return Some(begun),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.look_at_stuck(),
            }
        }
        self.begun.recv().ok()
    }

    /// A copy that takes too long has failed; the device has not, as far as anybody knows.
    fn late(&self, error: DeviceError) -> DeviceError {
        match error {
            DeviceError::Timeout { .. } => {
                let limit = self.shared.limit();
                DeviceError::CommandFailed(format!("a copy did not end within {limit:?}, blit_queue.timeout_ms"))
            }
            other => other,
        }
    }

    fn look_at_stuck(&mut self) {
        if self.stuck.is_empty() {
            return;
        }
        self.stuck.retain(|(copying, room)| {
            let over = copying.submission.status() != Status::Pending;
            if over {
                self.shared.gate.give_back(room);
            }
            !over
        });
        self.shared.gate.set_stuck(!self.stuck.is_empty());
    }

    fn read(&self, from: &[Buffer], sink: Sink, after: &[Point]) -> Result<()> {
        self.shared.settle(after)?;
        let read = || self.shared.overlap.during(|| drain_directly(from, sink));
        catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(DeviceError::CommandFailed("taking the bytes panicked".into())))
    }

    /// Waits for a copy.
    fn land(&self, copying: &Copying, after: &[Point]) -> Result<()> {
        if !copying.counted {
            self.shared.settle(after)?;
            self.shared.overlap.begin();
        }
        let landed = copying.submission.wait(self.shared.limit());
        self.shared.overlap.end();
        landed
    }

    /// Reads back what was sent and compares; a copy that failed or arrived different is made once more.
    fn compare_in(&self, staging: &Buffer, to: &[Buffer], sent: u32, mut landed: Result<()>) -> Result<()> {
        let bytes = total(to);
        let (source, back) = (staging.slice(0..bytes)?, staging.slice(bytes..2 * bytes)?);
        for again in [true, false] {
            landed = landed.and_then(|()| {
                self.copy_now(to, &back, false)?;
                self.compare(sent, checksum(&back)?)
            });
            match &landed {
                Err(DeviceError::CommandFailed(_)) if again => landed = self.copy_now(to, &source, true),
                _ => break,
            }
        }
        landed
    }

    /// Gives the sink what has been read; where checksums are compared, two copies of it are made.
    fn hand_over(
        &self,
        staging: &Buffer,
        from: &[Buffer],
        sink: Sink,
        bytes: u64,
        mut landed: Result<()>,
    ) -> Result<()> {
        let first = staging.slice(0..bytes)?;
        if self.shared.config.verify_checksums {
            let second = staging.slice(bytes..2 * bytes)?;
            for again in [true, false] {
                landed = landed.and_then(|()| {
                    self.copy_now(from, &second, false)?;
                    self.compare(checksum(&first)?, checksum(&second)?)
                });
                match &landed {
                    Err(DeviceError::CommandFailed(_)) if again => landed = self.copy_now(from, &first, false),
                    _ => break,
                }
            }
        }
        landed?;
        let hand = || drain_directly(&[first], sink);
        catch_unwind(AssertUnwindSafe(hand))
            .unwrap_or_else(|_| Err(DeviceError::CommandFailed("taking the bytes panicked".into())))
    }

    fn compare(&self, sent: u32, arrived: u32) -> Result<()> {
        if sent == arrived {
            return Ok(());
        }
        self.shared.note(|s| s.checksum_failures += 1);
        let message =
            format!("the bytes that arrived are not those that were sent (checksums {arrived:08x} and {sent:08x})");
        Err(DeviceError::CommandFailed(message))
    }

    fn copy_now(&self, parts: &[Buffer], whole: &Buffer, to_parts: bool) -> Result<()> {
        self.shared.copy(parts, whole, to_parts, &[], None)?.wait(self.shared.limit())
    }
}

fn checksum(buffer: &Buffer) -> Result<u32> {
    Ok(crc32fast::hash(&buffer.to_vec::<u8>()?))
}

impl Shared {
    /// Copies between `parts` and `whole` on the transfer queue.
    fn copy(
        &self,
        parts: &[Buffer],
        whole: &Buffer,
        to_parts: bool,
        after: &[Point],
        signal: Option<Point>,
    ) -> Result<Arc<dyn Submission>> {
        let queue = self.device.transfer_queue();
        let mut encoder = queue.encoder()?;
        record_copies(encoder.as_mut(), parts, whole, to_parts)?;
        queue.submit(encoder.finish()?, after, signal)
    }
}
