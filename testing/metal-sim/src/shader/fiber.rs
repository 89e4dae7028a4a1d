//! A fiber: threads of a kernel on a stack of its own.

use super::fault::Fault;
use super::group::Group;
use super::host::{LaneValues, Lanes, Site};
use super::object::Entry;
use corosensei::stack::{DefaultStack, Stack, StackPointer};
use corosensei::trap::CoroutineTrapHandler;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::cell::Cell;
use std::ops::Range;
use std::ptr;

/// Bytes of a fiber's stack; only what is touched takes memory.
const STACK: usize = 256 << 10;
const PAGE: usize = 4096;
/// Bytes by which one stack's top lies deeper in its page than the one before: a few cache lines, no divisor of a page.
const STAGGER: usize = 9 * 64;

/// Reason for which a fiber has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Ended: its threads have run to their end.
    End,
    /// Waits at a barrier of the threadgroup.
    Barrier(Site),
    /// Waits at a simd operation.
    Simd(Site),
    /// Ended by an instruction that the processor refuses.
    Fault(Fault),
}

/// Kernel that the fibers of a threadgroup run, with its arguments.
pub(super) struct Call {
    pub(super) entry: Entry,
    pub(super) buffers: *const *mut u8,
    pub(super) threadgroup: *const *mut u8,
    pub(super) group: *const Group,
}

// After a switch the processor mispredicts every return of the stack it comes to: what runs between a kernel and the
// switch is inlined.
type Switch = Yielder<*const Call, ()>;
type Strand = Coroutine<*const Call, (), Fault, Staggered>;

/// State of the running fiber, for the callbacks and the signal handler.
pub(super) struct Running {
    switch: Cell<*const Switch>,
    pub(super) trap: CoroutineTrapHandler<Fault>,
    /// Reason for its last stop.
    wait: Cell<Wait>,
    /// The threads that it runs, by index in the threadgroup, and the one that it is at.
    first: Cell<u32>,
    end: Cell<u32>,
    thread: Cell<u32>,
    /// The simd-group's values, this lane, and how many lanes there are.
    values: Cell<*mut LaneValues>,
    lane: Cell<u32>,
    count: Cell<u32>,
    /// Index of the set of values, 0 or 1, that the next simd operation fills.
    turn: Cell<usize>,
}

thread_local! {
    static RUNNING: Cell<*const Running> = const { Cell::new(ptr::null()) };
}

/// The fiber that this OS thread runs; null outside. For the signal handler.
pub(super) fn running() -> *const Running {
    RUNNING.get()
}

impl Running {
    /// Stops the fiber until it is resumed. Only for its own stack.
    #[inline(always)]
    fn wait(&self, wait: Wait) {
        self.wait.set(wait);
        // SAFETY: the fiber's body has stored its switch, which lives as long as the fiber; we are on its stack.
        unsafe { (*self.switch.get()).suspend(()) };
    }
}

/// Waits at a barrier. Only for a kernel's callbacks.
#[inline(always)]
pub(super) fn wait_at_barrier(site: Site) {
    // SAFETY: callbacks come only from a fiber that `resume` runs; it has set the pointer.
    unsafe { &*RUNNING.get() }.wait(Wait::Barrier(site));
}

/// Brings `value` to a simd operation and returns what every lane brought. Only for a kernel's callbacks.
#[inline(always)]
pub(super) fn meet(site: Site, value: &[u8]) -> Lanes {
    // SAFETY: as for `wait_at_barrier`.
    let running = unsafe { &*RUNNING.get() };
    let (values, turn, lane) = (running.values.get(), running.turn.get(), running.lane.get());
    // SAFETY: `resume` set the pointer to its simd-group's values; each lane writes its own, and nobody reads this set
    // before all lanes have come. No reference outlives the statement.
    unsafe { (&mut (*values).0)[turn][lane as usize].0[..value.len()].copy_from_slice(value) };
    running.turn.set(1 - turn);
    running.wait(Wait::Simd(site));
    // SAFETY: as above. The set stays as it is until the operation after the next one, for which every lane must have
    // come to the next one, and so have read.
    let set = unsafe { &raw const (*values).0[turn] };
    Lanes { values: set.cast(), lane, count: running.count.get() }
}

/// A stack whose top is some lines below the mapping's: tops at the same place of each page would share few cache sets.
struct Staggered {
    stack: DefaultStack,
    skip: usize,
}

impl Staggered {
    /// Makes the stack of the `number`th fiber of a threadgroup.
    fn new(number: usize) -> std::io::Result<Staggered> {
        Ok(Staggered { stack: DefaultStack::new(STACK)?, skip: number * STAGGER % PAGE })
    }
}

// SAFETY: it is the inner stack but for less than a page of its 64.
unsafe impl Stack for Staggered {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.stack.base().get() - self.skip).unwrap_or(self.stack.base())
    }

    fn limit(&self) -> StackPointer {
        self.stack.limit()
    }
}

/// A stack on which one thread after another runs.
pub(super) struct Fiber {
    coroutine: Strand,
    // Boxed: the running fiber is known by this address.
    running: Box<Running>,
}

impl Fiber {
    /// Makes the `number`th fiber of a threadgroup.
    ///
    /// # Errors
    /// No memory is left for a stack.
    pub(super) fn new(number: usize) -> Result<Fiber, String> {
        let stack = Staggered::new(number).map_err(|e| format!("no memory for a thread's stack: {e}"))?;
        let coroutine = start(stack);
        let running = Box::new(Running {
            switch: Cell::new(ptr::null()),
            trap: coroutine.trap_handler(),
            wait: Cell::new(Wait::End),
            first: Cell::new(0),
            end: Cell::new(0),
            thread: Cell::new(0),
            values: Cell::new(ptr::null_mut()),
            lane: Cell::new(0),
            count: Cell::new(0),
            turn: Cell::new(0),
        });
        Ok(Fiber { coroutine, running })
    }

    /// Says which threads this fiber runs next, and where they meet others at simd operations.
    pub(super) fn seat(&self, threads: Range<usize>, values: *mut LaneValues, lane: usize, count: usize) {
        self.running.first.set(threads.start as u32);
        self.running.end.set(threads.end as u32);
        self.running.values.set(values);
        self.running.lane.set(lane as u32);
        self.running.count.set(count as u32);
        self.running.turn.set(0);
    }

    /// Index in the threadgroup of the thread that ran last.
    pub(super) fn thread(&self) -> usize {
        self.running.thread.get() as usize
    }

    /// Reason for its last stop.
    #[inline(always)]
    pub(super) fn wait(&self) -> Wait {
        self.running.wait.get()
    }

    /// Starts `call` after `Wait::End`, or lets the fiber go on with the call that it has, until it stops again.
    ///
    /// # Safety
    /// Until the call has ended or the fiber is dropped, what `call` points at is valid for the kernel.
    #[inline(always)]
    pub(super) unsafe fn resume(&mut self, call: &Call) {
        let outer = RUNNING.replace(&raw const *self.running);
        let result = self.coroutine.resume(call);
        RUNNING.set(outer);
        if let CoroutineResult::Return(fault) = result {
            self.running.wait.set(Wait::Fault(fault));
        }
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        // Wherever the fiber waits, its stack holds frames of the kernel, of the callbacks and of `start`'s closure.
        // SAFETY: none of them owns anything.
        unsafe { self.coroutine.force_reset() };
    }
}

fn start(stack: Staggered) -> Strand {
    Coroutine::with_stack(stack, |switch: &Switch, mut call: *const Call| {
        // SAFETY: `resume` has set the pointer to this fiber's own.
        let running = unsafe { &*RUNNING.get() };
        running.switch.set(switch);
        loop {
            // SAFETY: `resume`'s caller vouches for the call, and lends it at least until the next stop.
            let Call { entry, buffers, threadgroup, group } = unsafe { &*call };
            let (first, end) = (running.first.get(), running.end.get());
            // SAFETY: `resume`'s caller vouches for what the call points at.
            unsafe { entry(*buffers, *threadgroup, *group, first, end, running.thread.as_ptr()) };
            running.wait.set(Wait::End);
            call = switch.suspend(());
        }
    })
}
