//! Ops as the workers run them. A step is made when an op is recorded and holds all that running it needs; every worker
//! calls [`Step::run`] for every step and finds its own part; a barrier follows each step.

mod attend;
mod copy;
mod embed;
mod experts;
mod linear;
mod lowering;
mod normalize;
mod pass;
mod rope;
mod route;
mod sample;
mod weight;

use crate::pool::Worker;
use attend::AttendStep;
use copy::{CopyStep, ObserveStep};
use embed::EmbedStep;
use experts::ExpertsStep;
use linear::LinearStep;
pub(crate) use lowering::Lowering;
use mlx_serving_device::{Arithmetic, Op, Result};
use normalize::NormalizeStep;
use rope::RopeStep;
use route::RouteStep;
use sample::SampleStep;

/// An op, ready to run.
pub(crate) enum Step {
    Embed(EmbedStep),
    Rope(RopeStep),
    Linear(LinearStep),
    Normalize(NormalizeStep),
    Route(RouteStep),
    Experts(ExpertsStep),
    AttendHalf(AttendStep<u16>),
    AttendFull(AttendStep<f32>),
    Observe(ObserveStep),
    Sample(SampleStep),
    Copy(CopyStep),
}

impl Step {
    /// Resolves a valid op.
    pub(crate) fn new(op: Op, lowering: &Lowering) -> Result<Step> {
        Ok(match op {
            Op::Embed(op) => Step::Embed(EmbedStep::new(op, lowering)?),
            Op::RopeAngles(op) => Step::Rope(RopeStep::new(&op)?),
            Op::Linear(op) => Step::Linear(LinearStep::new(op, lowering)?),
            Op::Normalize(op) => Step::Normalize(NormalizeStep::new(&op, lowering)?),
            Op::Route(op) => Step::Route(RouteStep::new(&op, lowering)?),
            Op::Experts(op) => Step::Experts(ExpertsStep::new(&op, lowering)?),
            Op::Attend(op) => match lowering.arithmetic {
                Arithmetic::Fast => Step::AttendHalf(AttendStep::new(&op, lowering)?),
                Arithmetic::Exact => Step::AttendFull(AttendStep::new(&op, lowering)?),
            },
            Op::Observe(op) => Step::Observe(ObserveStep::new(&op)?),
            Op::Sample(op) => Step::Sample(SampleStep::new(&op, lowering)?),
            Op::Copy(op) => Step::Copy(CopyStep::new(&op, lowering)?),
        })
    }

    /// Scratch that its workers share, bytes.
    pub(crate) fn shared_bytes(&self) -> usize {
        match self {
            Step::Linear(step) => step.shared_bytes(),
            Step::Experts(step) => step.shared_bytes(),
            Step::AttendHalf(step) => step.shared_bytes(),
            Step::AttendFull(step) => step.shared_bytes(),
            Step::Sample(step) => step.shared_bytes(),
            Step::Embed(_) | Step::Rope(_) | Step::Normalize(_) | Step::Route(_) | Step::Observe(_) | Step::Copy(_) => {
                0
            }
        }
    }

    /// True if the op reads a weight as a whole.
    pub(crate) fn has_weights(&self) -> bool {
        matches!(self, Step::Linear(_))
    }

    /// Asks memory for what worker `worker` will read first.
    pub(crate) fn ask_ahead(&self, worker: usize) {
        if let Step::Linear(step) = self {
            step.ask_ahead(worker);
        }
    }

    /// Computes a worker's part.
    pub(crate) fn run(&self, worker: &mut Worker) -> Result<()> {
        match self {
            Step::Embed(step) => step.run(worker),
            Step::Rope(step) => {
                step.run(worker);
                Ok(())
            }
            Step::Linear(step) => step.run(worker),
            Step::Normalize(step) => {
                step.run(worker);
                Ok(())
            }
            Step::Route(step) => {
                step.run(worker);
                Ok(())
            }
            Step::Experts(step) => step.run(worker),
            Step::AttendHalf(step) => step.run(worker),
            Step::AttendFull(step) => step.run(worker),
            Step::Observe(step) => step.run(worker),
            Step::Sample(step) => step.run(worker),
            Step::Copy(step) => {
                step.run(worker);
                Ok(())
            }
        }
    }
}
