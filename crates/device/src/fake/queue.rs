use super::log::{Event, Mark};
use super::machine::Machine;
use super::run::{corrupt, pretend, run};
use super::timeline::FakeTimeline;
use crate::{
    CommandBuffer, Completion, DeviceError, Encoder, Op, Point, Queue, QueueId, QueueKind, Result, Submission, Times,
};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Command of a buffer.
enum Command {
    Wait(Point),
    Run(Box<Op>),
}

struct FakeCommands {
    queue: QueueId,
    commands: Vec<Command>,
}

impl CommandBuffer for FakeCommands {
    fn queue(&self) -> QueueId {
        self.queue
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

struct FakeEncoder {
    recorded: FakeCommands,
    machine: Arc<Machine>,
}

impl Encoder for FakeEncoder {
    fn record(&mut self, op: Op) -> Result<()> {
        op.validate()?;
        self.recorded.queue.kind.admit(&op)?;
        op.check_lengths(self.machine.max_buffer_len)?;
        self.machine.sleep(self.machine.latency().record)?;
        self.recorded.commands.push(Command::Run(Box::new(op)));
        Ok(())
    }

    fn wait(&mut self, point: Point) -> Result<()> {
        self.machine.alive()?;
        self.recorded.commands.push(Command::Wait(point));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn CommandBuffer>> {
        self.machine.sleep(self.machine.latency().finish)?;
        Ok(Box::new(self.recorded))
    }
}

struct Entry {
    number: u64,
    commands: Vec<Command>,
    waits: Vec<Point>,
    signal: Option<Point>,
    submission: Arc<Completion>,
}

/// A queue: one thread that runs command buffers in the order of submission.
#[derive(Debug)]
pub(super) struct FakeQueue {
    id: QueueId,
    machine: Arc<Machine>,
    inbox: Option<Sender<Entry>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeQueue {
    pub(super) fn new(id: QueueId, machine: &Arc<Machine>) -> Result<Self> {
        let (inbox, entries) = channel();
        let runner = Runner { kind: id.kind, machine: machine.clone() };
        let thread =
            std::thread::Builder::new().name(format!("fake-{:?}", id.kind)).spawn(move || runner.serve(entries));
        let thread = thread.map_err(|e| DeviceError::Lost(format!("no thread for a queue: {e}")))?;
        Ok(Self { id, machine: machine.clone(), inbox: Some(inbox), thread: Some(thread) })
    }
}

impl Queue for FakeQueue {
    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        self.machine.alive()?;
        let recorded = FakeCommands { queue: self.id, commands: Vec::new() };
        Ok(Box::new(FakeEncoder { recorded, machine: self.machine.clone() }))
    }

    fn submit(
        &self,
        commands: Box<dyn CommandBuffer>,
        waits: &[Point],
        signal: Option<Point>,
    ) -> Result<Arc<dyn Submission>> {
        self.machine.alive()?;
        let FakeCommands { commands, .. } = *self.id.take(commands)?;
        let submission = Arc::new(Completion::default());
        let entry = Entry {
            number: self.machine.submissions.fetch_add(1, SeqCst),
            commands,
            waits: waits.to_vec(),
            signal,
            submission: submission.clone(),
        };
        self.machine.note(submitted(self.id.kind, &entry));
        let sent = self.inbox.as_ref().is_some_and(|inbox| inbox.send(entry).is_ok());
        if sent { Ok(submission) } else { Err(DeviceError::Lost("a queue's thread has ended".into())) }
    }
}

impl Drop for FakeQueue {
    /// Runs what has been submitted; what waits for a point that nobody has reached fails.
    fn drop(&mut self) {
        self.machine.close();
        self.inbox = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the {:?} queue panicked", self.id.kind);
        }
    }
}

fn submitted(queue: QueueKind, entry: &Entry) -> Event {
    let name = |command: &Command| match command {
        Command::Wait(_) => "Wait",
        Command::Run(op) => op.name(),
    };
    let copied = |command: &Command| match command {
        Command::Run(op) => match &**op {
            Op::Copy(op) => op.from.len(),
            _ => 0,
        },
        Command::Wait(_) => 0,
    };
    let inner = entry.commands.iter().filter_map(|command| match command {
        Command::Wait(point) => Some(point),
        Command::Run(_) => None,
    });
    Event::Submitted {
        queue,
        submission: entry.number,
        ops: entry.commands.iter().map(name).collect(),
        copied: entry.commands.iter().map(copied).sum(),
        waits: entry.waits.iter().chain(inner).map(Mark::of).collect(),
        signal: entry.signal.as_ref().map(Mark::of),
    }
}

/// A queue's thread.
struct Runner {
    kind: QueueKind,
    machine: Arc<Machine>,
}

impl Runner {
    /// Interval at which a wait looks whether the device is lost or dropped.
    const LOOK_UP: Duration = Duration::from_millis(2);

    fn serve(&self, entries: Receiver<Entry>) {
        for entry in entries {
            let Entry { number, commands, waits, signal, submission } = entry;
            let (outcome, times) = self.run(&commands, &waits);
            // Memory is released before anybody learns that its use is over.
            drop(commands);
            self.machine.note(Event::Ended { submission: number, completed: outcome.is_ok() });
            submission.end(outcome, Some(times));
            let dropped = self.machine.struck(|s| &mut s.queue(self.kind).drop_signal);
            if let Some(point) = signal.filter(|_| !dropped) {
                match point.timeline_as::<FakeTimeline>() {
                    Ok(timeline) => timeline.raise(point.value),
                    Err(_) => point.timeline.signal(point.value),
                }
            }
        }
    }

    fn run(&self, commands: &[Command], waits: &[Point]) -> (Result<()>, Times) {
        let ready = waits.iter().try_for_each(|point| self.wait(point));
        let began = self.machine.now();
        let outcome = ready.and_then(|()| self.faults()).and_then(|()| self.execute(commands));
        (outcome, (began, self.machine.now()))
    }

    /// The faults that strike a whole submission.
    fn faults(&self) -> Result<()> {
        self.machine.alive()?;
        if self.machine.struck(|s| &mut s.queue(self.kind).hang) {
            self.machine.hang()?;
        }
        if self.machine.struck(|s| &mut s.queue(self.kind).fail) {
            return Err(DeviceError::CommandFailed("a planted fault".into()));
        }
        Ok(())
    }

    fn execute(&self, commands: &[Command]) -> Result<()> {
        let mut due = self.machine.latency().execute;
        for command in commands {
            match command {
                Command::Wait(point) => self.wait(point)?,
                Command::Run(op) => {
                    let began = Instant::now();
                    let outcome = self.run_op(op, &mut due);
                    if self.kind == QueueKind::Compute {
                        self.machine.busy.fetch_add(began.elapsed().as_nanos() as u64, SeqCst);
                    }
                    outcome?;
                }
            }
        }
        Ok(())
    }

    /// Runs one op after its latency and what is `due` of the command buffer's.
    fn run_op(&self, op: &Op, due: &mut Duration) -> Result<()> {
        let latency = self.machine.latency();
        let Op::Copy(copy) = op else {
            self.machine.sleep(latency.op + std::mem::take(due))?;
            return if self.machine.compute { run(op) } else { pretend(op) };
        };
        if let Some(rate) = latency.copy_bytes_per_second {
            self.machine.sleep(Duration::from_secs_f64(copy.from.len() as f64 / rate.max(1) as f64))?;
        }
        if self.machine.struck(|s| &mut s.queue(self.kind).fail_copies) {
            return Err(DeviceError::CommandFailed("a planted fault failed a copy".into()));
        }
        run(op)?;
        if self.machine.struck(|s| &mut s.queue(self.kind).corrupt_copies) {
            corrupt(copy)?;
        }
        Ok(())
    }

    fn wait(&self, point: &Point) -> Result<()> {
        loop {
            self.machine.alive()?;
            match point.wait(Self::LOOK_UP) {
                Err(DeviceError::Timeout { .. }) if self.machine.closing.load(SeqCst) => {
                    let value = point.value;
                    return Err(DeviceError::Lost(format!("the device was dropped before a timeline reached {value}")));
                }
                Err(DeviceError::Timeout { .. }) => {}
                outcome => return outcome,
            }
        }
    }
}
