//! Runs what a command buffer recorded, on its queue's thread.

use super::command::Step;
use super::hazards::QueueOrder;
use crate::faults;
use objc2_metal::MTLCommandBufferError;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Error with which a command buffer ended.
pub(crate) struct Fault {
    pub(crate) code: MTLCommandBufferError,
    pub(crate) description: String,
}

/// Runs all steps. After a fault the rest do not run, and no event is signaled.
pub(crate) fn run(steps: &[Step], order: &mut QueueOrder) -> Result<(), Fault> {
    let outcome = catch_unwind(AssertUnwindSafe(|| run_steps(steps, order)));
    outcome.unwrap_or_else(|panic| Err(broken_rule(&*panic)))
}

fn run_steps(steps: &[Step], order: &mut QueueOrder) -> Result<(), Fault> {
    let lost = |description| Fault { code: MTLCommandBufferError::DeviceRemoved, description };
    if faults::fails_command_buffer() {
        return Err(Fault { code: MTLCommandBufferError::Internal, description: "a fault was asked for".into() });
    }
    pause(faults::delay() + faults::jitter());
    for step in steps {
        if faults::is_lost() {
            return Err(lost("device lost".into()));
        }
        match step {
            Step::Wait(event, value) => order.wait(&event.wait(*value).map_err(lost)?),
            Step::Signal(_, _) if faults::withholds_signals() => {}
            Step::Signal(event, value) => {
                event.signal(*value, order.so_far(), "-[MTLCommandBuffer encodeSignalEvent:value:]");
            }
            Step::Pass(pass) => {
                pass.run(order).map_err(|description| Fault { code: MTLCommandBufferError::PageFault, description })?
            }
        }
    }
    Ok(())
}

fn pause(delay: Duration) {
    if !delay.is_zero() {
        std::thread::sleep(delay);
    }
}

/// The message of a panic on the queue's thread: a rule was broken, and is on record.
fn broken_rule(panic: &(dyn Any + Send)) -> Fault {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
    Fault { code: MTLCommandBufferError::Internal, description: text }
}

/// The device's clock: the system's monotonic one, seconds.
pub(crate) fn now() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
