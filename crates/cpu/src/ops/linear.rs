//! [`Linear`]: rows made ready once, then tiles of 16 output features shared over the workers, each finished where it is computed.

use super::Lowering;
use crate::kernels::Isa;
use crate::kernels::norm::RmsNorm;
use crate::kernels::plain::PackedWeight;
use crate::pool::Worker;
use crate::scratch::Carver;
use crate::share::{Share, part};
use crate::simd::vectorise;
use crate::view::View;
use mlx_serving_device::ops::{Activation, Epilogue, Linear};
use mlx_serving_device::{DeviceError, Result};
use std::ops::Range;

/// Output features of a tile.
const TILE: usize = 16;

struct Matrix {
    weight: PackedWeight,
    bias: Option<View<f32>>,
    /// Where its features begin in a row of the output.
    first: usize,
}

enum Finish {
    Store,
    Add,
    Gated(Activation),
}

/// A [`Linear`] ready to run.
pub(crate) struct LinearStep {
    isa: Isa,
    input: View<f32>,
    gather: Option<View<u32>>,
    rows: usize,
    cols: usize,
    norm: Option<(View<f32>, f32)>,
    matrices: Vec<Matrix>,
    finish: Finish,
    out: View<f32>,
    /// Values of a row of `out`.
    stride: usize,
    share: Share,
}

impl LinearStep {
    pub(super) fn new(op: Linear, lowering: &Lowering) -> Result<Self> {
        let (cols, features) = (op.cols(), op.features());
        let mut first = 0;
        let mut matrices = Vec::with_capacity(op.projections.len());
        for p in &op.projections {
            let rows = p.weight.spec.rows;
            let bias = p.bias.as_ref().map(|bias| View::new(bias, rows)).transpose()?;
            matrices.push(Matrix { weight: PackedWeight::new(&p.weight)?, bias, first });
            first += rows;
        }
        let (finish, out, stride) = match &op.epilogue {
            Epilogue::Store(out) => (Finish::Store, out, features),
            Epilogue::Add(out) => (Finish::Add, out, features),
            Epilogue::Gated(activation, out) => (Finish::Gated(*activation), out, features / 2),
        };
        let input = View::whole(&op.input)?;
        let out = View::new(out, op.rows * stride)?;
        if input.overlaps(&out) {
            return Err(DeviceError::Contract("linear: the output overlaps the input".into()));
        }
        let norm = op.norm.as_ref().map(|n| View::new(&n.weight, cols).map(|weight| (weight, n.eps))).transpose()?;
        Ok(Self {
            isa: lowering.isa,
            input,
            gather: op.gather.as_ref().map(|gather| View::new(gather, op.rows)).transpose()?,
            rows: op.rows,
            cols,
            norm,
            matrices,
            finish,
            out,
            stride,
            share: Share::new(lowering.workers),
        })
    }

    pub(super) fn shared_bytes(&self) -> usize {
        4 * self.rows * self.cols
    }

    pub(super) fn run(&self, worker: &mut Worker) -> Result<()> {
        let ready = worker.arena::<f32>(0, self.rows * self.cols)?;
        for row in part(self.rows, worker.index, worker.count) {
            // SAFETY: each row is one worker's own until the barrier.
            self.prepare(row, unsafe { ready.get_mut(row * self.cols..(row + 1) * self.cols) })?;
        }
        worker.barrier()?;
        // SAFETY: all rows are written; from here they are only read.
        let x = unsafe { ready.all() };
        for tiles in self.share.take(worker.index, self.tiles(), 1) {
            for tile in tiles {
                self.tile(worker, tile, x);
            }
        }
        Ok(())
    }

    /// Row `row` of the input as the matrices take it.
    fn prepare(&self, row: usize, to: &mut [f32]) -> Result<()> {
        // SAFETY: the host or an earlier op wrote the row numbers.
        let from = self.gather.as_ref().map_or(row, |gather| unsafe { gather.item(row) } as usize);
        let have = self.input.len() / self.cols;
        if from >= have {
            return Err(DeviceError::Contract(format!("linear: input row {from} of {have}")));
        }
        // SAFETY: an earlier op wrote the input, which the output does not overlap; nothing writes norms while ops run.
        let (x, norm) = unsafe {
            let norm = self.norm.as_ref().map(|(weight, eps)| (weight.all(), *eps));
            (self.input.get(from * self.cols..(from + 1) * self.cols), norm)
        };
        match norm {
            None => to.copy_from_slice(x),
            Some((weight, eps)) => vectorise(self.isa, RmsNorm { row: x, weight, eps, to }),
        }
        Ok(())
    }

    fn tiles(&self) -> usize {
        match self.finish {
            Finish::Gated(_) => self.matrices[0].weight.rows().div_ceil(TILE),
            _ => self.matrices.iter().map(|m| m.weight.rows().div_ceil(TILE)).sum(),
        }
    }

    fn tile(&self, worker: &mut Worker, tile: usize, x: &[f32]) {
        let len = self.rows * TILE;
        let mut carver = worker.scratch.carve(2 * Carver::bytes::<f32>(len));
        let (product, gate) = (carver.take::<f32>(len), carver.take::<f32>(len));
        if let Finish::Gated(activation) = self.finish {
            self.multiply(&self.matrices[0], tile, x, gate);
            self.multiply(&self.matrices[1], tile, x, product);
            for (up, gate) in product.iter_mut().zip(&*gate) {
                *up *= activate(activation, *gate);
            }
            self.write(features(&self.matrices[0], tile), product);
        } else {
            let mut tile = tile;
            for matrix in &self.matrices {
                let tiles = matrix.weight.rows().div_ceil(TILE);
                if tile < tiles {
                    self.multiply(matrix, tile, x, product);
                    return self.write(features(matrix, tile), product);
                }
                tile -= tiles;
            }
        }
    }

    /// The products of a tile with every row, biases added: [rows][16].
    fn multiply(&self, matrix: &Matrix, tile: usize, x: &[f32], to: &mut [f32]) {
        matrix.weight.multiply(tile, x, self.cols, to);
        if let Some(bias) = &matrix.bias {
            let local = tile * TILE..((tile + 1) * TILE).min(bias.len());
            // SAFETY: a bias; nothing writes it while ops run.
            let bias = unsafe { bias.get(local) };
            for to in to.chunks_exact_mut(TILE) {
                to.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
    }

    /// Stores or adds [rows][16] finished values to the features `at` of every row.
    fn write(&self, at: Range<usize>, values: &[f32]) {
        for (row, values) in values.chunks_exact(TILE).enumerate() {
            // SAFETY: the features of a tile are written by the one worker that took it.
            let to = unsafe { self.out.get_mut(row * self.stride + at.start..row * self.stride + at.end) };
            match self.finish {
                Finish::Add => to.iter_mut().zip(values).for_each(|(to, y)| *to += y),
                Finish::Store | Finish::Gated(_) => to.iter_mut().zip(values).for_each(|(to, y)| *to = *y),
            }
        }
    }
}

/// The features of the output that a matrix's tile makes.
fn features(matrix: &Matrix, tile: usize) -> Range<usize> {
    let local = tile * TILE..((tile + 1) * TILE).min(matrix.weight.rows());
    matrix.first + local.start..matrix.first + local.end
}

fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
    }
}
