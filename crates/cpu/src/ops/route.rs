use super::lowering::Lowering;
use crate::kernels::route::Choose;
use crate::pool::Worker;
use crate::scratch::Carver;
use crate::share::Share;
use crate::view::View;
use mlx_serving_device::Result;
use mlx_serving_device::ops::{Route, Scoring};

/// A [`Route`] ready to run.
pub(crate) struct RouteStep {
    logits: View<f32>,
    rows: usize,
    experts: usize,
    slots: usize,
    bias: Option<View<f32>>,
    renormalize: bool,
    factor: f32,
    chosen: View<u32>,
    weights: View<f32>,
    share: Share,
}

impl RouteStep {
    pub(super) fn new(op: &Route, lowering: &Lowering) -> Result<Self> {
        let bias = match &op.scoring {
            Scoring::Softmax => None,
            Scoring::Sigmoid { bias } => Some(View::new(bias, op.experts)?),
        };
        Ok(Self {
            logits: View::new(&op.logits, op.rows * op.experts)?,
            rows: op.rows,
            experts: op.experts,
            slots: op.slots,
            bias,
            renormalize: op.renormalize,
            factor: op.factor,
            chosen: View::new(&op.chosen, op.rows * op.slots)?,
            weights: View::new(&op.weights, op.rows * op.slots)?,
            share: Share::new(lowering.workers),
        })
    }

    pub(super) fn run(&self, worker: &mut Worker) {
        let Self { experts, slots, .. } = *self;
        let scores = worker.scratch.carve(Carver::bytes::<f32>(experts)).take::<f32>(experts);
        for row in self.share.take(worker.index, self.rows, 1).flatten() {
            // SAFETY: an earlier op wrote the logits, which no output overlaps; nothing writes biases while ops run; the row's outputs are
            // this worker's own.
            let (logits, bias, chosen, weights) = unsafe {
                (
                    self.logits.get(row * experts..(row + 1) * experts),
                    self.bias.as_ref().map(|bias| bias.all()),
                    self.chosen.get_mut(row * slots..(row + 1) * slots),
                    self.weights.get_mut(row * slots..(row + 1) * slots),
                )
            };
            let (renormalize, factor) = (self.renormalize, self.factor);
            Choose { logits, bias, renormalize, factor, scores, chosen, weights }.run();
        }
    }
}
