use super::lowering::Lowering;
use crate::kernels::norm::{AddNorm, NormInPlace};
use crate::pool::Worker;
use crate::share::Share;
use crate::simd::{Isa, vectorize};
use crate::view::View;
use mlx_serving_device::Result;
use mlx_serving_device::ops::Normalize;

/// A [`Normalize`] ready to run.
pub(crate) struct NormalizeStep {
    input: View<f32>,
    rows: usize,
    stride: usize,
    first: usize,
    weight: View<f32>,
    eps: f32,
    target: Option<View<f32>>,
    share: Share,
    isa: Isa,
}

impl NormalizeStep {
    pub(super) fn new(op: &Normalize, lowering: &Lowering) -> Result<Self> {
        Ok(Self {
            input: View::new(&op.input, op.rows * op.stride)?,
            rows: op.rows,
            stride: op.stride,
            first: op.first,
            weight: View::new(&op.norm.weight, op.width)?,
            eps: op.norm.eps,
            target: op.target.as_ref().map(|target| View::new(target, op.rows * op.width)).transpose()?,
            share: Share::new(lowering.workers),
            isa: lowering.isa,
        })
    }

    pub(super) fn run(&self, worker: &Worker) {
        for row in self.share.take(worker.index, self.rows, 1).flatten() {
            let (at, width, eps) = (row * self.stride + self.first, self.weight.len(), self.eps);
            // SAFETY: nothing writes norms while ops run.
            let weight = unsafe { self.weight.all() };
            match &self.target {
                Some(target) => {
                    // SAFETY: an earlier op wrote the input, which the target does not overlap; the target's row is this worker's own.
                    let (row, to) =
                        unsafe { (self.input.get(at..at + width), target.get_mut(row * width..(row + 1) * width)) };
                    vectorize(self.isa, AddNorm { row, weight, eps, to });
                }
                None => {
                    // SAFETY: the row is this worker's own.
                    let row = unsafe { self.input.get_mut(at..at + width) };
                    vectorize(self.isa, NormInPlace { row, weight, eps });
                }
            }
        }
    }
}
