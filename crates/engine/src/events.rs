//! Queues of events between the engine's thread and whoever reads them, bounded by what may lie unread.

use crate::error::EngineError;
use crate::request::Event;
use mlx_serving_text::Segment;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

/// Bytes of events that may lie unread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnreadLimits {
    pub stream: usize,
    pub all: usize,
}

/// Unread events over all streams of an engine.
#[derive(Debug)]
pub(crate) struct Backlog {
    limits: UnreadLimits,
    /// Wakes the engine's thread.
    engine: Waker,
    unread: AtomicUsize,
    open: Mutex<Open>,
    /// Readers to be woken, each once, when the [`WakeOnce`] ends that there is; without one they are woken at once.
    held: Mutex<Option<Vec<Waker>>>,
}

/// Holds back the wake-ups of readers while it lives. Its end, by whatever way, wakes each of them once.
#[must_use = "readers are held back only while it lives"]
pub(crate) struct WakeOnce<'a>(&'a Backlog);

/// The queues whose receivers are there.
#[derive(Debug, Default)]
struct Open {
    next: u64,
    queues: BTreeMap<u64, Arc<Queue>>,
}

/// Unread events of one stream.
struct Queue {
    number: u64,
    backlog: Arc<Backlog>,
    unread: Mutex<Unread>,
}

#[derive(Debug, Default)]
struct Unread {
    events: VecDeque<Event>,
    /// Bytes of the events.
    bytes: usize,
    /// Tokens of the answer among them.
    tokens: usize,
    /// No more events come: the last one was sent, the sender or the receiver is gone, or the stream was cut off.
    ended: bool,
    /// The reader was too slow.
    slow: Option<EngineError>,
    /// Waker of the reader that waits for an event.
    reader: Option<Waker>,
    /// The engine waits for the reader, with no more tokens until one is read.
    awaited: bool,
}

impl Backlog {
    /// Without any stream; `engine` wakes the engine's thread.
    pub(crate) fn new(limits: UnreadLimits, engine: Waker) -> Arc<Self> {
        let (open, held) = (Mutex::default(), Mutex::default());
        Arc::new(Self { limits, engine, unread: AtomicUsize::new(0), open, held })
    }

    /// Holds back wake-ups from here on: for as long as it takes to queue the events of a step, not while anything is waited for.
    pub(crate) fn wake_once(&self) -> WakeOnce<'_> {
        self.held().get_or_insert_default();
        WakeOnce(self)
    }

    /// A way for the events of one request.
    pub(crate) fn open(self: &Arc<Self>) -> (Sender, Receiver) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.next += 1;
        let queue = Arc::new(Queue { number: open.next, backlog: self.clone(), unread: Mutex::default() });
        open.queues.insert(queue.number, queue.clone());
        (Sender(queue.clone()), Receiver(queue))
    }

    /// Bytes that lie unread.
    pub(crate) fn unread(&self) -> usize {
        self.unread.load(Ordering::Relaxed)
    }

    fn held(&self) -> MutexGuard<'_, Option<Vec<Waker>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes a reader, now or when all are.
    fn wake(&self, reader: Waker) {
        match &mut *self.held() {
            Some(held) if held.iter().any(|other| other.will_wake(&reader)) => return,
            Some(held) => return held.push(reader),
            None => {}
        }
        reader.wake();
    }

    /// Cuts off the stream of which most lies unread: the one that sends may be read well.
    fn relieve(&self) {
        let slowest = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.queues.values().max_by_key(|queue| queue.lock().bytes).cloned()
        };
        let Some(queue) = slowest else { return };
        queue.cut_off(|unread| {
            let all = self.limits.all;
            format!("{unread} bytes of its answer lie unread, the most of all streams, which together exceed {all}")
        });
    }
}

impl Drop for WakeOnce<'_> {
    fn drop(&mut self) {
        let held = self.0.held().take();
        held.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the stream for its reader's slowness: what lies unread gives way to the error.
    fn cut_off(&self, why: impl FnOnce(usize) -> String) {
        let mut unread = self.lock();
        if unread.events.is_empty() || unread.slow.is_some() {
            return;
        }
        let error = EngineError::Slow(why(unread.bytes));
        self.clear(&mut unread);
        self.push(&mut unread, Event::Failed(error.clone()));
        (unread.ended, unread.slow) = (true, Some(error));
        self.wake(unread);
    }

    /// Lets the reader go on.
    fn wake(&self, mut unread: MutexGuard<'_, Unread>) {
        let reader = unread.reader.take();
        drop(unread);
        if let Some(reader) = reader {
            self.backlog.wake(reader);
        }
    }

    /// Lets the engine go on, if it waits for the reader.
    fn wake_engine(&self, mut unread: MutexGuard<'_, Unread>) {
        let awaited = std::mem::take(&mut unread.awaited);
        drop(unread);
        if awaited {
            self.backlog.engine.wake_by_ref();
        }
    }

    fn push(&self, unread: &mut Unread, event: Event) {
        let bytes = bytes(&event);
        unread.bytes += bytes;
        unread.tokens += usize::from(matches!(event, Event::Token(_)));
        self.backlog.unread.fetch_add(bytes, Ordering::Relaxed);
        unread.events.push_back(event);
    }

    fn pop(&self, unread: &mut Unread) -> Option<Event> {
        let event = unread.events.pop_front()?;
        let bytes = bytes(&event);
        unread.bytes -= bytes;
        unread.tokens -= usize::from(matches!(event, Event::Token(_)));
        self.backlog.unread.fetch_sub(bytes, Ordering::Relaxed);
        Some(event)
    }

    fn clear(&self, unread: &mut Unread) {
        self.backlog.unread.fetch_sub(std::mem::take(&mut unread.bytes), Ordering::Relaxed);
        (unread.events, unread.tokens) = (VecDeque::new(), 0);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({})", self.number)
    }
}

/// Memory of an event, roughly: itself and the lists that it holds.
fn bytes(event: &Event) -> usize {
    const ALTERNATIVE: usize = size_of::<(u32, f32)>();
    let held = match event {
        Event::Prompt(tokens) => tokens
            .iter()
            .map(|token| size_of_val(token) + token.logprobs.as_ref().map_or(0, |l| ALTERNATIVE * l.top.len()))
            .sum(),
        Event::Token(token) => {
            segments(&token.segments) + token.logprobs.as_ref().map_or(0, |l| ALTERNATIVE * l.top.len())
        }
        Event::Embedding(values) => size_of_val(&values[..]),
        Event::Finished(finish) => segments(&finish.segments),
        Event::Failed(error) => error.to_string().len(),
    };
    size_of::<Event>() + held
}

fn segments(segments: &[Segment]) -> usize {
    segments.iter().map(|segment| size_of::<Segment>() + segment.as_str().len()).sum()
}

/// The engine's end.
#[derive(Debug)]
pub(crate) struct Sender(Arc<Queue>);

impl Sender {
    /// Queues an event; behind the last one, and where nobody reads any more, it is dropped. Too much unread cuts a stream off:
    /// this one or, of all, the slowest. A single event is never too much.
    pub(crate) fn send(&self, event: Event) {
        let Queue { backlog, .. } = &*self.0;
        let mut unread = self.0.lock();
        if unread.ended {
            return;
        }
        unread.ended = event.is_last();
        self.0.push(&mut unread, event);
        let limit = backlog.limits.stream;
        let slow = !unread.ended && unread.events.len() > 1 && unread.bytes > limit;
        self.0.wake(unread);
        if slow {
            self.0.cut_off(|unread| format!("{unread} bytes of its answer lie unread, more than {limit}"));
        } else if backlog.unread() > backlog.limits.all {
            backlog.relieve();
        }
    }

    /// True if nobody wants more events: the receiver is gone, or was cut off.
    pub(crate) fn unwanted(&self) -> bool {
        self.0.lock().ended
    }

    /// True if `most` tokens lie unread, those `in_flight` counted. The engine is woken then when one is read, and when nobody reads
    /// any more.
    pub(crate) fn awaits_reader(&self, in_flight: usize, most: usize) -> bool {
        let mut unread = self.0.lock();
        unread.awaited = !unread.ended && unread.tokens + in_flight >= most;
        unread.awaited
    }

    /// Error with which the stream was cut off, if it was.
    pub(crate) fn slow(&self) -> Option<EngineError> {
        self.0.lock().slow.clone()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut unread = self.0.lock();
        unread.ended = true;
        self.0.wake(unread);
    }
}

/// The reader's end. Dropping it frees what lies unread.
#[derive(Debug)]
pub(crate) struct Receiver(Arc<Queue>);

impl Receiver {
    /// Takes the next event, blocking the thread until `deadline`; `Pending` if nothing came.
    pub(crate) fn next_until(&mut self, deadline: Option<Instant>) -> Poll<Option<Event>> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let context = Context::from_waker(&waker);
        loop {
            if let ready @ Poll::Ready(_) = self.poll(&context) {
                return ready;
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => std::thread::park(),
                Some(left) if left.is_zero() => return Poll::Pending,
                Some(left) => std::thread::park_timeout(left),
            }
        }
    }

    /// The next event; `None` once there is none and the sender has gone.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Poll<Option<Event>> {
        let mut unread = self.0.lock();
        if let Some(event) = self.0.pop(&mut unread) {
            self.0.wake_engine(unread);
            return Poll::Ready(Some(event));
        }
        if unread.ended {
            return Poll::Ready(None);
        }
        unread.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut unread = self.0.lock();
        unread.ended = true;
        self.0.clear(&mut unread);
        self.0.wake_engine(unread);
        let mut open = self.0.backlog.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.queues.remove(&self.0.number);
    }
}

/// Wakes a thread that waits for an event.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests;
