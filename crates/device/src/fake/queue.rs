use super::control::QueueKind;
use super::log::{Event, Mark};
use super::run::{corrupt, pretend, run};
use super::state::State;
use super::timeline::FakeTimeline;
use crate::{CommandBuffer, Completion, DeviceError, Encoder, Op, Point, Queue, Result, Submission, Times};
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
    kind: QueueKind,
    commands: Vec<Command>,
}

impl CommandBuffer for FakeCommands {
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

struct FakeEncoder {
    recorded: FakeCommands,
    state: Arc<State>,
}

impl Encoder for FakeEncoder {
    fn record(&mut self, op: Op) -> Result<()> {
        if self.recorded.kind == QueueKind::Transfer && !matches!(op, Op::Copy(_)) {
            return Err(DeviceError::Contract(format!("the transfer queue runs copies only, not {op:?}")));
        }
        op.validate()?;
        let max = self.state.max_buffer_len;
        if let Some(buffer) = op.buffers().into_iter().find(|buffer| buffer.len() > max) {
            return Err(DeviceError::Contract(format!("an op refers to {buffer:?}; at most {max} bytes may be bound")));
        }
        self.state.sleep(self.state.latency().record)?;
        self.recorded.commands.push(Command::Run(Box::new(op)));
        Ok(())
    }

    fn wait(&mut self, point: Point) -> Result<()> {
        self.state.alive()?;
        self.recorded.commands.push(Command::Wait(point));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn CommandBuffer>> {
        self.state.sleep(self.state.latency().finish)?;
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
    kind: QueueKind,
    state: Arc<State>,
    inbox: Option<Sender<Entry>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeQueue {
    pub(super) fn new(kind: QueueKind, state: Arc<State>) -> Result<Self> {
        let (inbox, entries) = channel();
        let runner = Runner { kind, state: state.clone() };
        let thread = std::thread::Builder::new().name(format!("fake-{kind:?}")).spawn(move || runner.serve(entries));
        let thread = thread.map_err(|e| DeviceError::Lost(format!("no thread for a queue: {e}")))?;
        Ok(Self { kind, state, inbox: Some(inbox), thread: Some(thread) })
    }
}

impl Queue for FakeQueue {
    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        self.state.alive()?;
        let recorded = FakeCommands { kind: self.kind, commands: Vec::new() };
        Ok(Box::new(FakeEncoder { recorded, state: self.state.clone() }))
    }

    fn submit(
        &self,
        commands: Box<dyn CommandBuffer>,
        waits: &[Point],
        signal: Option<Point>,
    ) -> Result<Arc<dyn Submission>> {
        self.state.alive()?;
        let commands = commands.into_any().downcast::<FakeCommands>();
        let commands = commands.map_err(|_| DeviceError::Contract("a command buffer of another device".into()))?;
        if commands.kind != self.kind {
            return Err(DeviceError::Contract(format!("a command buffer for {:?} on {:?}", commands.kind, self.kind)));
        }
        let submission = Arc::new(Completion::default());
        let entry = Entry {
            number: self.state.submissions.fetch_add(1, SeqCst),
            commands: commands.commands,
            waits: waits.to_vec(),
            signal,
            submission: submission.clone(),
        };
        self.state.note(submitted(self.kind, &entry));
        let sent = self.inbox.as_ref().is_some_and(|inbox| inbox.send(entry).is_ok());
        if sent { Ok(submission) } else { Err(DeviceError::Lost("a queue's thread has ended".into())) }
    }
}

impl Drop for FakeQueue {
    /// Runs what has been submitted; what waits for a point that nobody has reached fails.
    fn drop(&mut self) {
        self.state.close();
        self.inbox = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the {:?} queue panicked", self.kind);
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
    state: Arc<State>,
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
            self.state.note(Event::Ended { submission: number, completed: outcome.is_ok() });
            submission.end(outcome, Some(times));
            let dropped = self.state.struck(|s| &mut s.queue(self.kind).drop_signal);
            if let Some(point) = signal.filter(|_| !dropped) {
                match point.timeline.as_any().downcast_ref::<FakeTimeline>() {
                    Some(timeline) => timeline.raise(point.value),
                    None => point.timeline.signal(point.value),
                }
            }
        }
    }

    fn run(&self, commands: &[Command], waits: &[Point]) -> (Result<()>, Times) {
        let ready = waits.iter().try_for_each(|point| self.wait(point));
        let began = self.state.now();
        let outcome = ready.and_then(|()| self.faults()).and_then(|()| self.execute(commands));
        (outcome, (began, self.state.now()))
    }

    /// The faults that strike a whole submission.
    fn faults(&self) -> Result<()> {
        self.state.alive()?;
        if self.state.struck(|s| &mut s.queue(self.kind).hang) {
            self.state.hang()?;
        }
        if self.state.struck(|s| &mut s.queue(self.kind).fail) {
            return Err(DeviceError::CommandFailed("a planted fault".into()));
        }
        Ok(())
    }

    fn execute(&self, commands: &[Command]) -> Result<()> {
        let mut due = self.state.latency().execute;
        for command in commands {
            match command {
                Command::Wait(point) => self.wait(point)?,
                Command::Run(op) => {
                    let began = Instant::now();
                    let outcome = self.run_op(op, &mut due);
                    if self.kind == QueueKind::Compute {
                        self.state.busy.fetch_add(began.elapsed().as_nanos() as u64, SeqCst);
                    }
                    outcome?;
                }
            }
        }
        Ok(())
    }

    /// Runs one op after its latency and what is `due` of the command buffer's.
    fn run_op(&self, op: &Op, due: &mut Duration) -> Result<()> {
        let latency = self.state.latency();
        let Op::Copy(copy) = op else {
            self.state.sleep(latency.op + std::mem::take(due))?;
            return if self.state.compute { run(op) } else { pretend(op) };
        };
        if let Some(rate) = latency.copy_bytes_per_second {
            self.state.sleep(Duration::from_secs_f64(copy.from.len() as f64 / rate.max(1) as f64))?;
        }
        if self.state.struck(|s| &mut s.queue(self.kind).fail_copies) {
            return Err(DeviceError::CommandFailed("a planted fault failed a copy".into()));
        }
        run(op)?;
        if self.state.struck(|s| &mut s.queue(self.kind).corrupt_copies) {
            corrupt(copy)?;
        }
        Ok(())
    }

    fn wait(&self, point: &Point) -> Result<()> {
        loop {
            self.state.alive()?;
            match point.wait(Self::LOOK_UP) {
                Err(DeviceError::Timeout { .. }) if self.state.closing.load(SeqCst) => {
                    let value = point.value;
                    return Err(DeviceError::Lost(format!("the device was dropped before a timeline reached {value}")));
                }
                Err(DeviceError::Timeout { .. }) => {}
                outcome => return outcome,
            }
        }
    }
}
