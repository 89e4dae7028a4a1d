//! Threads: one a queue runs its command buffers in the order of their commits.

use super::command_buffer::SimCommandBuffer;
use super::hazards::{Clock, QueueOrder};
use super::queue::QueueCore;
use crate::rules;
use crate::runtime::lock;
use objc2::rc::{Retained, autoreleasepool};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// A committed command buffer.
pub(crate) struct Work {
    pub(crate) command_buffer: Retained<SimCommandBuffer>,
    /// Steps that the host had seen complete when it committed the command buffer.
    pub(crate) after: Clock,
    pub(crate) busy: Busy,
}

static BUSY: Mutex<usize> = Mutex::new(0);
static IDLE: Condvar = Condvar::new();

/// Held while something of the device's is still to happen.
pub(crate) struct Busy(());

impl Busy {
    pub(crate) fn begin() -> Self {
        *lock(&BUSY) += 1;
        Self(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *lock(&BUSY) -= 1;
        IDLE.notify_all();
    }
}

/// Waits until all committed command buffers have completed and their handlers have returned. A queue that still waits for
/// an event after `limit` breaks a rule.
pub fn drain(limit: Duration) {
    rules::require(is_idle_within(limit), "drain", || {
        format!("{} command buffers or handlers do not end", *lock(&BUSY))
    });
}

/// False if something of the device's still runs after `limit`.
pub(crate) fn is_idle_within(limit: Duration) -> bool {
    let wait = IDLE.wait_timeout_while(lock(&BUSY), limit, |busy| *busy > 0);
    !wait.unwrap_or_else(std::sync::PoisonError::into_inner).1.timed_out()
}

/// Runs `f` on a thread of its own.
pub(crate) fn spawn(name: &str, f: impl FnOnce() + Send + 'static) {
    let busy = Busy::begin();
    let thread = thread::Builder::new().name(format!("metal-sim {name}")).spawn(move || {
        f();
        drop(busy);
    });
    thread.expect("the system has threads");
}

/// Starts the thread of a queue; it ends when the queue is gone.
pub(crate) fn start(queue: Arc<QueueCore>) {
    let run = move || {
        let mut order = QueueOrder::new(queue.id);
        while let Some(Work { command_buffer, after, busy }) = queue.next() {
            order.wait(&after);
            autoreleasepool(|_| {
                command_buffer.run(&mut order);
                drop(command_buffer);
            });
            drop(busy);
        }
    };
    thread::Builder::new().name("metal-sim queue".into()).spawn(run).expect("the system has threads");
}
