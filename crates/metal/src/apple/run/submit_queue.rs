use super::flights::{Flight, Flights, LIMIT, PIECES};
use crate::apple::heap::{Allocator, BIND, MetalMemory};
use crate::apple::objects::{AnyThread, Object, refused};
use crate::apple::record::{Pass, Step};
use block2::RcBlock;
use mlx_serving_device::{Buffer, DeviceError, QueueKind, Result, Storage, Times};
use mlx_serving_kernels::fault;
use objc2::rc::autoreleasepool;
use objc2::runtime::ProtocolObject;
use objc2_metal::{
    MTLCommandBuffer, MTLCommandBufferError, MTLCommandBufferStatus, MTLCommandQueue, MTLDevice, MTLFence,
};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A command queue with what its command buffers share.
pub(crate) struct SubmitQueue {
    kind: QueueKind,
    queue: Object<dyn MTLCommandQueue>,
    /// Orders the queue's encoders.
    fence: Object<dyn MTLFence>,
    /// `LIMIT` fault buffers; flight n has the one at n modulo `LIMIT`.
    faults: Buffer,
    flights: Arc<Flights>,
    /// Multiply-adds of one command buffer: the system resets a GPU that is busy with one for seconds.
    piece_work: u64,
    /// Submissions held back by the limit. Locked while a command buffer is written, which keeps them in order.
    backlog: Mutex<VecDeque<Flight>>,
    /// Length of the backlog.
    waiting: AtomicUsize,
}

impl SubmitQueue {
    pub(crate) fn new(
        kind: QueueKind,
        queue: Object<dyn MTLCommandQueue>,
        device: &ProtocolObject<dyn MTLDevice>,
        allocator: &Allocator,
        flights: Arc<Flights>,
        piece_work: u64,
    ) -> Result<Arc<Self>> {
        let fence = device.newFence().ok_or_else(|| refused("fence"))?;
        let faults: Arc<MetalMemory> = allocator.internal(LIMIT as u64 * BIND, Storage::Shared, "fault buffers")?;
        let (backlog, waiting) = (Mutex::default(), AtomicUsize::new(0));
        Ok(Arc::new(Self { kind, queue, fence, faults: Buffer::whole(faults), flights, piece_work, backlog, waiting }))
    }

    /// Commits a submission now, or when the queue has room for it.
    pub(crate) fn submit(self: &Arc<Self>, flight: Flight) {
        self.waiting.fetch_add(1, SeqCst);
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner).push_back(flight);
        self.advance();
    }

    /// Waits until everything has run.
    pub(crate) fn drain(&self) {
        self.flights.drain(self.kind, || self.waiting.load(SeqCst) > 0);
    }

    /// Commits what there is room for.
    fn advance(self: &Arc<Self>) {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        while !backlog.is_empty()
            && let Some(number) = self.flights.clearance(self.kind)
            && let Some(flight) = backlog.pop_front()
        {
            autoreleasepool(|_| self.depart(number, flight));
            self.waiting.fetch_sub(1, SeqCst);
        }
    }

    fn depart(self: &Arc<Self>, number: u64, mut flight: Flight) {
        let written = self.fault_buffer(number).and_then(|fault| Ok((self.write(&flight, &fault)?, fault)));
        flight.pieces = written.as_ref().map_or(1, |(pieces, _)| pieces.len());
        // Before it is committed, since it may land at once.
        self.flights.depart(self.kind, flight);
        let (pieces, fault) = match written {
            Ok(written) => written,
            Err(error) => return self.flights.land(self.kind, number, Err(error), None),
        };
        let Some((last, first)) = pieces.split_last() else { return };
        first.iter().for_each(|piece| piece.commit());
        // SAFETY: they have been committed, and all that is done from now on is to ask how they ended.
        let first = unsafe { AnyThread::new(first.to_vec()) };
        let queue = self.clone();
        let landed = on_completion(move |last| {
            // In order: when the last piece has ended, so have the others.
            let mut pieces = first.iter().map(|piece| &**piece).chain([last]);
            let began = pieces.clone().next().and_then(times);
            let times = began.zip(times(last)).map(|((began, _), (_, ended))| (began, ended));
            let outcome = pieces.try_for_each(outcome).and_then(|()| raised(&fault));
            queue.flights.land(queue.kind, number, outcome, times);
            if queue.waiting.load(SeqCst) > 0 {
                queue.advance();
            }
        });
        // SAFETY: a block of the type that Metal calls, which copies it.
        unsafe { last.addCompletedHandler(RcBlock::as_ptr(&landed)) };
        last.commit();
    }

    fn fault_buffer(&self, number: u64) -> Result<Buffer> {
        let start = number % LIMIT as u64 * BIND;
        let buffer = self.faults.slice(start..start + fault::BYTES)?;
        buffer.write(0, &[0u32; 2])?;
        Ok(buffer)
    }

    /// Writes a flight's command buffers, one unless it is long. They retain nothing: the flight keeps memory, pipelines and
    /// events, the queue the rest, until it has landed.
    fn write(&self, flight: &Flight, fault: &Buffer) -> Result<Vec<Object<dyn MTLCommandBuffer>>> {
        let mut pieces = vec![self.commands()?];
        for point in flight.waits.iter().filter(|point| !point.reached()) {
            pieces[0].encodeWaitForEvent_value(point.timeline().event(), point.value());
        }
        for (i, steps) in cut(&flight.steps, self.piece_work).into_iter().enumerate() {
            if i > 0 {
                pieces.push(self.commands()?);
            }
            let mut pass = Pass::new(&pieces[i], &self.fence, fault);
            steps.iter().try_for_each(|step| pass.write(step))?;
        }
        if let (Some(point), Some(last)) = (&flight.signal, pieces.last()) {
            last.encodeSignalEvent_value(point.timeline().event(), point.value());
        }
        Ok(pieces)
    }

    fn commands(&self) -> Result<Object<dyn MTLCommandBuffer>> {
        self.queue.commandBufferWithUnretainedReferences().ok_or_else(|| refused("command buffer"))
    }
}

/// Cuts steps into at most [`PIECES`] pieces of about `piece_work` multiply-adds, or equally long ones if there is more.
fn cut(steps: &[Step], piece_work: u64) -> Vec<&[Step]> {
    let work = |step: &Step| match step {
        Step::Launch { launch, .. } => launch.work,
        Step::Wait(_) | Step::Blit(_) => 0,
    };
    let total: u64 = steps.iter().map(work).sum();
    // A piece ends with the step that fills it. More than an eighth of the total fits seven times at most.
    let full = piece_work.max(total / PIECES as u64 + 1);
    let mut done = 0;
    let mut number = 0;
    steps
        .chunk_by(|step, _| {
            done += work(step);
            let ends = done >= full * (number + 1);
            number = done / full;
            !ends
        })
        .collect()
}

type Commands = ProtocolObject<dyn MTLCommandBuffer>;

/// A block that Metal calls on a thread of its own.
fn on_completion(f: impl Fn(&Commands) + Send + Sync + 'static) -> RcBlock<dyn Fn(NonNull<Commands>)> {
    RcBlock::new(move |commands: NonNull<Commands>| {
        // SAFETY: Metal passes the command buffer, and keeps it during the call.
        autoreleasepool(|_| f(unsafe { commands.as_ref() }));
    })
}

/// Result of a command buffer.
fn outcome(commands: &Commands) -> Result<()> {
    if commands.status() == MTLCommandBufferStatus::Completed {
        return Ok(());
    }
    let Some(error) = commands.error() else {
        return Err(DeviceError::CommandFailed("Metal gave no reason".into()));
    };
    let text = error.localizedDescription().to_string();
    Err(match MTLCommandBufferError(error.code() as usize) {
        MTLCommandBufferError::DeviceRemoved => DeviceError::Lost(text),
        // After too many errors Metal ignores whatever a process submits.
        MTLCommandBufferError::AccessRevoked => DeviceError::Lost(text),
        _ => DeviceError::CommandFailed(text),
    })
}

/// Fault that kernels found in their input.
fn raised(fault: &Buffer) -> Result<()> {
    let mut words = [0u32; 2];
    fault.read(0, &mut words)?;
    fault::error(words).map_or(Ok(()), Err)
}

/// Times at which the device ran a command buffer; nothing if it gives none, as for one without commands.
fn times(commands: &Commands) -> Option<Times> {
    let [began, ended] =
        [commands.GPUStartTime(), commands.GPUEndTime()].map(|seconds| Duration::try_from_secs_f64(seconds).ok());
    began.zip(ended).filter(|(began, ended)| !began.is_zero() && began <= ended)
}
