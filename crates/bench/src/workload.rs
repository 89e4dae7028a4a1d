//! A load asked of an open model in this process, with the figures of its device.

use crate::error::BenchError;
use crate::goodput::Limits;
use crate::load::{Load, Plan};
use crate::measured::{Counted, Measured, ratio};
use crate::run::{Ran, run};
use crate::target::InProcess;
use mlx_serving_runtime::{Model, machine};

/// The requests of a load for this model.
pub(crate) fn plan(model: &Model, load: &Load) -> Result<Plan, BenchError> {
    Plan::of(load, Some(model.engine().info().max_context))
}

/// Runs a planned load once, with what came of each request.
pub(crate) fn observe(
    model: &Model,
    plan: &Plan,
    limits: Option<&Limits>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Measured, Ran), BenchError> {
    let target = InProcess::new(model, &plan.load);
    let (before, pace) = (model.engine().device().counters(), model.engine().pace());
    let ran = run(&target, plan, progress)?;
    let (after, paced) = (model.engine().device().counters(), model.engine().pace());
    let measured = Measured::of(plan, &ran, limits);
    let busy = after.busy.saturating_sub(before.busy).as_secs_f64();
    let encoding = paced.encoding.saturating_sub(pace.encoding).as_secs_f64() * 1e3;
    let allocations = (after.allocations - before.allocations) as f64;
    let measured = Measured {
        device_utilization: Some(ratio(busy, measured.wall_s)),
        allocations_per_token: Some(ratio(allocations, measured.total_tokens as f64)),
        encode_ms_per_step: Some(ratio(encoding, (paced.steps - pace.steps) as f64)),
        peak_memory_bytes: machine::peak_memory(),
        tokens_counted_by: Counted::Engine,
        ..measured
    };
    Ok((measured, ran))
}
