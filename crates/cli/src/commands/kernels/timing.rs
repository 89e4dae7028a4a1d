//! Times of an op that is called again and again.

use mlx_serving_device::{Op, Queue, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time that a command buffer should run: long beside what submitting costs, short beside a driver's watchdog.
const TARGET: Duration = Duration::from_millis(20);
/// Calls of one command buffer at most.
const MAX_CALLS: usize = 1000;
/// Command buffers that count.
const RUNS: usize = 7;
/// Time after which the runs that were timed must do.
const PATIENCE: Duration = Duration::from_secs(5);
/// Steps recorded, an odd number.
const RECORDINGS: usize = 21;
/// No command buffer takes longer.
const LIMIT: Duration = Duration::from_secs(600);

/// Time per call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// Seconds.
    pub median: f64,
    /// Seconds.
    pub minimum: f64,
    /// Command buffers timed.
    pub runs: usize,
    /// Calls in each.
    pub calls: usize,
    /// Timed by the device; else by the host, submission included.
    pub by_device: bool,
}

/// Times an op; `op` makes its n-th call.
pub(super) fn time(queue: &Arc<dyn Queue>, op: &dyn Fn(usize) -> Op) -> Result<Timing> {
    // Compiles kernels and touches memory; does not count.
    run(queue, op, 0..1)?;
    let (mut next, mut calls) = (1, 1);
    let (mut spent, mut by_device) = run(queue, op, next..next + calls)?;
    next += calls;
    while spent < TARGET.as_secs_f64() / 2.0 && calls < MAX_CALLS {
        let wanted = calls as f64 * TARGET.as_secs_f64() / spent.max(1e-9);
        calls = (wanted as usize).clamp(calls + 1, MAX_CALLS);
        (spent, by_device) = run(queue, op, next..next + calls)?;
        next += calls;
    }
    let (began, mut times) = (Instant::now(), vec![spent / calls as f64]);
    while times.len() < RUNS && began.elapsed() < PATIENCE {
        let (spent, device) = run(queue, op, next..next + calls)?;
        by_device &= device;
        times.push(spent / calls as f64);
        next += calls;
    }
    times.sort_by(f64::total_cmp);
    let n = times.len();
    let median = (times[(n - 1) / 2] + times[n / 2]) / 2.0;
    Ok(Timing { median, minimum: times[0], runs: n, calls, by_device })
}

/// Seconds that the host takes to record a step, the median; nothing runs.
pub(super) fn recording(queue: &Arc<dyn Queue>, step: &dyn Fn() -> Vec<Op>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..RECORDINGS {
        let ops = step();
        let began = Instant::now();
        let mut encoder = queue.encoder()?;
        ops.into_iter().try_for_each(|op| encoder.record(op))?;
        drop(encoder.finish()?);
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[RECORDINGS / 2])
}

/// Runs some calls in one command buffer: seconds, and whether the device timed them.
fn run(queue: &Arc<dyn Queue>, op: &dyn Fn(usize) -> Op, calls: std::ops::Range<usize>) -> Result<(f64, bool)> {
    let mut encoder = queue.encoder()?;
    for call in calls {
        encoder.record(op(call))?;
    }
    let commands = encoder.finish()?;
    let began = Instant::now();
    let submission = queue.submit(commands, &[], None)?;
    submission.wait(LIMIT)?;
    let host = began.elapsed();
    // A device whose clock did not move has not timed anything.
    let device = submission.times().and_then(|(start, end)| end.checked_sub(start)).filter(|time| !time.is_zero());
    Ok((device.unwrap_or(host).as_secs_f64(), device.is_some()))
}
