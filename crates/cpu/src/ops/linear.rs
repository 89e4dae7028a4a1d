//! [`Linear`]: tokens made ready once for all matrices, then tiles of 16 output features shared over the workers, each finished
//! where it is computed.

use super::lowering::Lowering;
use super::pass::{Pass, Ready, passes};
use super::weight::PackedWeight;
use crate::kernels::gate::Gate;
use crate::kernels::matmul::{InputFormat, Prepare, RowNorm, TILE, widths};
use crate::pool::Worker;
use crate::scratch::Carver;
use crate::share::{Share, part};
use crate::simd::{Isa, vectorize};
use crate::view::View;
use mlx_serving_device::ops::{Activation, Epilogue, Linear};
use mlx_serving_device::{Arithmetic, DeviceError, Result};
use std::ops::Range;

/// Values up to which every worker makes all tokens ready for itself, which is quicker than to meet. Not measured.
const ALONE: usize = 8192;
/// Features that are made ready at a time. Not measured.
const PIECE: usize = 512;
/// Bytes of weights that a worker takes at a time: of a stream, and for several passes over them. Not measured.
pub(super) const RUN: usize = 48 << 10;
const KEPT: usize = 192 << 10;
/// Bytes of a weight that are asked for ahead: what memory delivers while a worker waits for another. Not
/// measured against other lengths.
const AHEAD: usize = 16 << 10;
/// Runs of each worker, at least: what is left at the end is short. Not measured.
pub(super) const RUNS: usize = 6;

struct Matrix {
    weight: PackedWeight,
    bias: Option<View<f32>>,
    /// Offset of its features in a row of the output.
    first: usize,
    /// Index of the input that it takes.
    input: usize,
}

/// Tokens in one format.
#[derive(Clone, Copy)]
struct Input {
    format: InputFormat,
    /// Words of a token.
    words: usize,
    /// Offset of the first word.
    start: usize,
}

enum Finish {
    Store,
    Add,
    Gated(Activation),
}

/// A [`Linear`] ready to run.
pub(crate) struct LinearStep {
    isa: Isa,
    arithmetic: Arithmetic,
    workers: usize,
    input: View<f32>,
    gather: Option<View<u32>>,
    cols: usize,
    norm: Option<(View<f32>, f32)>,
    passes: Vec<Pass>,
    inputs: Vec<Input>,
    /// Words of all inputs.
    words: usize,
    /// True if every worker makes the tokens ready for itself.
    alone: bool,
    matrices: Vec<Matrix>,
    finish: Finish,
    out: View<f32>,
    /// Values of a row of `out`.
    stride: usize,
    /// Tiles that a worker takes at a time.
    run: usize,
    share: Share,
}

impl LinearStep {
    pub(super) fn new(op: Linear, lowering: &Lowering) -> Result<Self> {
        let (cols, features) = (op.cols(), op.features());
        let passes = passes(op.rows, widths(lowering.isa));
        let width = passes.last().map_or(0, |pass| pass.start + pass.width);
        let (mut inputs, mut words) = (Vec::<Input>::new(), 0);
        let mut first = 0;
        let mut matrices = Vec::with_capacity(op.projections.len());
        for p in &op.projections {
            let format = InputFormat::of(p.weight.spec.format, lowering.arithmetic);
            let input = inputs.iter().position(|input| input.format == format).unwrap_or_else(|| {
                inputs.push(Input { format, words: format.words(cols), start: words });
                words += (format.words(cols) * width).next_multiple_of(TILE);
                inputs.len() - 1
            });
            let bias = p.bias.as_ref().map(|bias| View::new(bias, p.weight.spec.rows)).transpose()?;
            matrices.push(Matrix { weight: PackedWeight::new(&p.weight)?, bias, first, input });
            first += p.weight.spec.rows;
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
        let mut step = Self {
            isa: lowering.isa,
            arithmetic: lowering.arithmetic,
            workers: lowering.workers,
            input,
            gather: op.gather.as_ref().map(|gather| View::new(gather, op.rows)).transpose()?,
            cols,
            norm,
            passes,
            inputs,
            words,
            alone: op.rows * cols <= ALONE,
            matrices,
            finish,
            out,
            stride,
            run: 1,
            share: Share::new(lowering.workers),
        };
        step.run = step.run_length();
        Ok(step)
    }

    /// Tiles that a worker takes at a time.
    fn run_length(&self) -> usize {
        let lines = self.matrices.iter().map(|m| m.weight.layout.lines).max().unwrap_or(1);
        let bytes = lines * 4 * TILE * if matches!(self.finish, Finish::Gated(_)) { 2 } else { 1 };
        let most = if self.passes.len() > 1 { KEPT } else { RUN };
        (most / bytes).min(self.tiles() / (RUNS * self.workers)).max(1)
    }

    pub(super) fn shared_bytes(&self) -> usize {
        4 * self.words * if self.alone { self.workers } else { 1 }
    }

    /// Asks memory for the first weights of a worker's own part.
    pub(super) fn ask_ahead(&self, worker: usize) {
        let first = part(self.tiles().div_ceil(self.run), worker, self.workers).start * self.run;
        let mut before = 0;
        for matrix in &self.matrices {
            let tiles = matrix.weight.layout.tiles();
            if (before..before + tiles).contains(&first) {
                matrix.weight.ask_ahead(self.isa, first - before, AHEAD);
            }
            // The two of a gate are walked through side by side, others one after the other.
            before += if matches!(self.finish, Finish::Gated(_)) { 0 } else { tiles };
        }
    }

    pub(super) fn run(&self, worker: &mut Worker) -> Result<()> {
        let copy = if self.alone { 4 * worker.index * self.words } else { 0 };
        let ready = worker.arena::<u32>(copy, self.words)?;
        let pieces = self.passes.len() * self.cols.div_ceil(PIECE);
        for input in &self.inputs {
            let mine = if self.alone { 0..pieces } else { part(pieces, worker.index, worker.count) };
            for piece in mine {
                self.prepare(input, piece, &ready)?;
            }
        }
        if !self.alone {
            worker.barrier()?;
        }
        // SAFETY: all inputs are written, by this worker or before the barrier; from here they are only read.
        let ready = unsafe { ready.all() };
        for tiles in self.share.take(worker.index, self.tiles(), self.run) {
            for pass in &self.passes {
                self.multiply(worker, tiles.clone(), pass, ready);
            }
        }
        Ok(())
    }

    /// Makes ready one piece of `input`: some features of one pass.
    fn prepare(&self, input: &Input, piece: usize, ready: &View<u32>) -> Result<()> {
        let segments = self.cols.div_ceil(PIECE);
        let pass = &self.passes[piece / segments];
        let first = piece % segments * PIECE;
        let step = input.format.step();
        let steps = first / step..(first + PIECE).min(self.cols).div_ceil(step);
        let words = self.words_of(input, pass, steps.clone());
        // SAFETY: the steps of a pass are one worker's own, or the copy is.
        let to = unsafe { ready.get_mut(words) };
        for (token, row) in pass.rows.clone().enumerate() {
            let (row, norm) = self.row(row)?;
            let steps = steps.clone();
            vectorize(self.isa, Prepare { format: input.format, row, norm, steps, token, width: pass.width, to });
        }
        Ok(())
    }

    /// Range of some steps of a pass.
    fn words_of(&self, input: &Input, pass: &Pass, steps: Range<usize>) -> Range<usize> {
        let start = input.start + pass.start * input.words;
        let word = |step: usize| start + (step * input.format.step_words()).min(input.words) * pass.width;
        word(steps.start)..word(steps.end)
    }

    /// Row `row` of the input, and its norm.
    fn row(&self, row: usize) -> Result<(&[f32], Option<RowNorm<'_>>)> {
        // SAFETY: the host or an earlier op wrote the row numbers.
        let from = self.gather.as_ref().map_or(row, |gather| unsafe { gather.item(row) } as usize);
        let have = self.input.len() / self.cols;
        if from >= have {
            return Err(DeviceError::Contract(format!("linear: input row {from} of {have}")));
        }
        // SAFETY: an earlier op wrote the input, which the output does not overlap; nothing writes norms while ops run.
        Ok(unsafe {
            let norm = self.norm.as_ref().map(|(weight, eps)| RowNorm { weight: weight.all(), eps: *eps });
            (self.input.get(from * self.cols..(from + 1) * self.cols), norm)
        })
    }

    fn tiles(&self) -> usize {
        match self.finish {
            Finish::Gated(_) => self.matrices[0].weight.layout.tiles(),
            _ => self.matrices.iter().map(|m| m.weight.layout.tiles()).sum(),
        }
    }

    /// Multiplies a pass by `tiles`, counted over all matrices, or, of a gated op, over each of the two.
    fn multiply(&self, worker: &mut Worker, tiles: Range<usize>, pass: &Pass, ready: &[u32]) {
        let len = tiles.len() * pass.width;
        let mut carver = worker.scratch.carve(2 * Carver::bytes::<[f32; TILE]>(len));
        let (products, gates) = (carver.take::<[f32; TILE]>(len), carver.take::<[f32; TILE]>(len));
        if let Finish::Gated(activation) = self.finish {
            self.product(&self.matrices[0], tiles.clone(), pass, ready, gates);
            self.product(&self.matrices[1], tiles.clone(), pass, ready, products);
            vectorize(self.isa, Gate { activation, gate: gates, up: products });
            return self.write(&self.matrices[0], tiles, pass, products);
        }
        let mut before = 0;
        for matrix in &self.matrices {
            let count = matrix.weight.layout.tiles();
            let own = tiles.start.max(before)..tiles.end.min(before + count);
            if own.start < own.end {
                let own = own.start - before..own.end - before;
                let products = &mut products[..own.len() * pass.width];
                self.product(matrix, own.clone(), pass, ready, products);
                self.write(matrix, own, pass, products);
            }
            before += count;
        }
    }

    /// to = the products of some tiles of a matrix with a pass, biases added: [tiles][width][16].
    fn product(&self, matrix: &Matrix, tiles: Range<usize>, pass: &Pass, ready: &[u32], to: &mut [[f32; TILE]]) {
        let Input { format, words, start } = self.inputs[matrix.input];
        let x = &ready[start + pass.start * words..][..words * pass.width];
        let ready = Ready { format, cols: self.cols, width: pass.width, x };
        ready.product(self.isa, self.arithmetic, &matrix.weight, tiles.clone(), to);
        let Some(bias) = &matrix.bias else { return };
        for (tile, to) in tiles.zip(to.chunks_exact_mut(pass.width)) {
            // SAFETY: a bias; nothing writes it while ops run.
            let bias = unsafe { bias.get(tile * TILE..((tile + 1) * TILE).min(bias.len())) };
            for to in to {
                to.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
    }

    /// Stores or adds finished values, [tiles][width][16], to the features of every row.
    fn write(&self, matrix: &Matrix, tiles: Range<usize>, pass: &Pass, values: &[[f32; TILE]]) {
        for (tile, values) in tiles.zip(values.chunks_exact(pass.width)) {
            let features = tile * TILE..((tile + 1) * TILE).min(matrix.weight.rows());
            for (row, values) in pass.rows.clone().zip(values) {
                let at = row * self.stride + matrix.first;
                // SAFETY: the features of a tile are written by the one worker that took it.
                let to = unsafe { self.out.get_mut(at + features.start..at + features.end) };
                match self.finish {
                    Finish::Add => to.iter_mut().zip(values).for_each(|(to, y)| *to += y),
                    Finish::Store | Finish::Gated(_) => to.iter_mut().zip(values).for_each(|(to, y)| *to = *y),
                }
            }
        }
    }
}
