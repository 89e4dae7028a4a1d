use crate::error::EngineError;
use crate::schedule::plan::Plan;
use crate::schedule::scheduler::Scheduler;
use crate::sequence::Sequence;
use crate::step::stepper::{Flight, Stepper};
use mlx_serving_device::DeviceError;
use std::collections::VecDeque;
use std::time::Duration;

/// A request is computed again once after a failed step; twice is the request's or the device's fault.
const RETRIES: u32 = 1;

/// A step that failed.
pub(crate) struct FailedStep {
    pub error: DeviceError,
    pub plan: Plan,
    pub fault: Fault,
}

/// Cause of a step's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Unknown: the device, or one of its requests.
    Step,
    /// One request, which has failed with it.
    Request,
    /// Spilled blocks that could not be restored, which the store has logged.
    Spill,
}

/// Recovers from a failed step: waits for the rest in flight, forgets what they computed, and computes the sequences again. Returns those
/// for which that was tried, and whose fault it may be. A device that is lost or hangs is an error; nothing is in flight then,
/// because it never completes, or nobody can tell.
pub(crate) fn recover(
    failed: FailedStep,
    flights: &mut VecDeque<Flight>,
    stepper: &mut Stepper,
    scheduler: &mut Scheduler,
    limit: Duration,
) -> Result<Vec<Sequence>, EngineError> {
    let FailedStep { error, plan, fault } = failed;
    let mut plans = vec![plan];
    let in_flight = std::mem::take(flights);
    check_device(&error, limit)?;
    if fault != Fault::Spill {
        tracing::warn!(%error, "a step failed; its requests are computed again");
    }
    // Their masks depend on tokens that never come.
    in_flight.iter().for_each(|flight| flight.step.abandon_masks());
    for flight in in_flight {
        // Its input came from the failed step, so how it ends tells only whether the device works still.
        if let Err(failure) = stepper.complete(&flight.step, limit) {
            check_device(&failure.error, limit)?;
        }
        plans.push(flight.plan);
    }
    stepper.settle_all(limit);
    Ok(scheduler.requeue(&plans, |sequence| sequence.reset(fault == Fault::Step) > RETRIES))
}

/// Fails if nothing that is submitted after such an error can ever complete: command buffers run in order.
fn check_device(error: &DeviceError, limit: Duration) -> Result<(), EngineError> {
    match error {
        DeviceError::Lost(_) => Err(error.clone().into()),
        DeviceError::Timeout { .. } => Err(EngineError::Device(format!(
            "the device hangs: a step did not complete within {limit:?}, engine.step_limit_s; load the engine again"
        ))),
        _ => Ok(()),
    }
}
