//! [`Experts`]: pairs of a row and a slot grouped by expert, so that its weights are read once for all of them; then tiles of 16 output
//! features shared over the workers, each finished where it is computed. A pair's arithmetic is that of a row of `Linear`.

use super::linear::{RUN, RUNS};
use super::lowering::Lowering;
use super::pass::{Ready, passes};
use super::weight::PackedWeight;
use crate::kernels::gate::Gate;
use crate::kernels::matmul::{InputFormat, Line, Prepare, RowNorm, TILE, widths};
use crate::pool::Worker;
use crate::scratch::Carver;
use crate::share::Share;
use crate::simd::{Isa, vectorize};
use crate::view::View;
use mlx_serving_device::ops::{Activation, Experts, Stacks};
use mlx_serving_device::{Arithmetic, DeviceError, Result, Weight};
use std::ops::Range;

#[cfg(test)]
mod tests;

/// Matrices of all experts.
struct Stack {
    weight: PackedWeight,
    format: InputFormat,
    /// Offset of the first word of its inputs.
    start: usize,
}

enum Finish {
    /// Of the two stacks.
    Gated(Activation),
    /// Of one, by these weights.
    Sum(View<f32>),
}

/// Pairs of one expert that are multiplied together.
struct ExpertPass {
    expert: usize,
    /// Places in the order of pairs.
    pairs: Range<usize>,
    width: usize,
    /// Widths of the passes before.
    start: usize,
}

/// Pairs in the order of their experts, and their passes.
struct Groups {
    order: Vec<usize>,
    passes: Vec<ExpertPass>,
}

/// An [`Experts`] ready to run.
pub(crate) struct ExpertsStep {
    isa: Isa,
    arithmetic: Arithmetic,
    input: View<f32>,
    cols: usize,
    norm: Option<(View<f32>, f32)>,
    chosen: View<u32>,
    rows: usize,
    slots: usize,
    experts: usize,
    stacks: Vec<Stack>,
    /// Words of all inputs.
    words: usize,
    finish: Finish,
    out: View<f32>,
    /// Tiles of an expert.
    tiles: usize,
    /// Tiles that a worker takes at a time.
    run: usize,
    preparing: Share,
    multiplying: Share,
}

impl ExpertsStep {
    pub(super) fn new(op: &Experts, lowering: &Lowering) -> Result<Self> {
        let (cols, features, pairs) = (op.cols(), op.features(), op.rows * op.slots);
        // No pass is more than twice as wide as it has pairs.
        let most = 2 * pairs;
        let mut words = 0;
        let mut stack = |weight: &Weight| -> Result<Stack> {
            let format = InputFormat::of(weight.spec.format, lowering.arithmetic);
            let start = words;
            words += (format.words(cols) * most).next_multiple_of(TILE);
            Ok(Stack { weight: PackedWeight::new(weight)?, format, start })
        };
        let (stacks, finish, out, inputs, outputs) = match &op.stacks {
            Stacks::Gated { gate, up, activation, out } => {
                (vec![stack(gate)?, stack(up)?], Finish::Gated(*activation), out, op.rows, pairs)
            }
            Stacks::Sum { down, weights, out } => {
                (vec![stack(down)?], Finish::Sum(View::new(weights, pairs)?), out, pairs, op.rows)
            }
        };
        let bytes: usize = stacks.iter().map(|stack| stack.weight.layout.lines * size_of::<Line>()).sum();
        let tiles = features / TILE;
        Ok(Self {
            isa: lowering.isa,
            arithmetic: lowering.arithmetic,
            input: View::new(&op.input, inputs * cols)?,
            cols,
            norm: op.norm.as_ref().map(|n| View::new(&n.weight, cols).map(|weight| (weight, n.eps))).transpose()?,
            chosen: View::new(&op.chosen, pairs)?,
            rows: op.rows,
            slots: op.slots,
            experts: op.experts,
            stacks,
            words,
            finish,
            out: View::new(out, outputs * features)?,
            tiles,
            run: (RUN / bytes).min(tiles / (RUNS * lowering.workers)).max(1),
            preparing: Share::new(lowering.workers),
            multiplying: Share::new(lowering.workers),
        })
    }

    pub(super) fn shared_bytes(&self) -> usize {
        4 * self.words
    }

    pub(super) fn run(&self, worker: &mut Worker) -> Result<()> {
        // Each worker for itself: it takes less than to wait for another.
        let groups = self.group()?;
        let ready = worker.arena::<u32>(0, self.words)?;
        for pass in self.preparing.take(worker.index, groups.passes.len(), 1).flatten() {
            self.prepare(&groups, &groups.passes[pass], &ready);
        }
        worker.barrier()?;
        // SAFETY: all inputs are written, before the barrier; from here they are only read.
        let ready = unsafe { ready.all() };
        for tiles in self.multiplying.take(worker.index, self.tiles, self.run) {
            match &self.finish {
                Finish::Gated(activation) => self.gated(worker, &groups, tiles, *activation, ready),
                Finish::Sum(weights) => self.sum(worker, &groups, tiles, weights, ready),
            }
        }
        Ok(())
    }

    /// Groups the pairs by their experts, in rising order.
    fn group(&self) -> Result<Groups> {
        // SAFETY: the host or an earlier op wrote the choice.
        let chosen = unsafe { self.chosen.all() };
        if let Some(expert) = chosen.iter().find(|&&expert| expert as usize >= self.experts) {
            return Err(DeviceError::Contract(format!("experts: expert {expert} of {}", self.experts)));
        }
        let mut order: Vec<usize> = (0..chosen.len()).collect();
        order.sort_by_key(|&pair| chosen[pair]);
        let (mut all, mut first, mut width) = (Vec::new(), 0, 0);
        for pairs in order.chunk_by(|&a, &b| chosen[a] == chosen[b]) {
            let expert = chosen[pairs[0]] as usize;
            let of_expert = passes(pairs.len(), widths(self.isa));
            let end = of_expert.last().map_or(0, |pass| pass.start + pass.width);
            all.extend(of_expert.into_iter().map(|pass| ExpertPass {
                expert,
                pairs: first + pass.rows.start..first + pass.rows.end,
                width: pass.width,
                start: width + pass.start,
            }));
            (first, width) = (first + pairs.len(), width + end);
        }
        Ok(Groups { order, passes: all })
    }

    /// Makes the inputs of a pass ready, for each stack.
    fn prepare(&self, groups: &Groups, pass: &ExpertPass, ready: &View<u32>) {
        for stack in &self.stacks {
            // SAFETY: a pass is one worker's own.
            let to = unsafe { ready.get_mut(self.words_of(stack, pass)) };
            for (token, &pair) in groups.order[pass.pairs.clone()].iter().enumerate() {
                let row = match self.finish {
                    Finish::Gated(_) => pair / self.slots,
                    Finish::Sum(_) => pair,
                };
                // SAFETY: an earlier op wrote the input, which the output does not overlap; nothing writes norms while ops run.
                let (row, norm) = unsafe {
                    let norm = self.norm.as_ref().map(|(weight, eps)| RowNorm { weight: weight.all(), eps: *eps });
                    (self.input.get(row * self.cols..(row + 1) * self.cols), norm)
                };
                let (format, width) = (stack.format, pass.width);
                let steps = 0..self.cols.div_ceil(format.step());
                vectorize(self.isa, Prepare { format, row, norm, steps, token, width, to: &mut *to });
            }
        }
    }

    /// Range of the words of a pass.
    fn words_of(&self, stack: &Stack, pass: &ExpertPass) -> Range<usize> {
        let words = stack.format.words(self.cols);
        let start = stack.start + pass.start * words;
        start..start + words * pass.width
    }

    /// to = the products of some tiles of a pass's expert: [tiles][width][16].
    fn product(&self, stack: &Stack, tiles: Range<usize>, pass: &ExpertPass, ready: &[u32], to: &mut [[f32; TILE]]) {
        let x = &ready[self.words_of(stack, pass)];
        let before = pass.expert * self.tiles;
        let tiles = before + tiles.start..before + tiles.end;
        let ready = Ready { format: stack.format, cols: self.cols, width: pass.width, x };
        ready.product(self.isa, self.arithmetic, &stack.weight, tiles, to);
    }

    /// Some tiles of every pair: activation(gate) · up.
    fn gated(&self, worker: &mut Worker, groups: &Groups, tiles: Range<usize>, activation: Activation, ready: &[u32]) {
        let widest = tiles.len() * widths(self.isa)[0];
        let mut carver = worker.scratch.carve(2 * Carver::bytes::<[f32; TILE]>(widest));
        let (products, gates) = (carver.take::<[f32; TILE]>(widest), carver.take::<[f32; TILE]>(widest));
        for pass in &groups.passes {
            let len = tiles.len() * pass.width;
            let (products, gates) = (&mut products[..len], &mut gates[..len]);
            self.product(&self.stacks[0], tiles.clone(), pass, ready, gates);
            self.product(&self.stacks[1], tiles.clone(), pass, ready, products);
            vectorize(self.isa, Gate { activation, gate: gates, up: products });
            for (tile, values) in tiles.clone().zip(products.chunks_exact(pass.width)) {
                for (&pair, values) in groups.order[pass.pairs.clone()].iter().zip(values) {
                    let at = (pair * self.tiles + tile) * TILE;
                    // SAFETY: the features of a tile are written by the one worker that took it.
                    unsafe { self.out.get_mut(at..at + TILE) }.copy_from_slice(values);
                }
            }
        }
    }

    /// Some tiles of every row: the sum over its slots, in their order, is added to the output.
    fn sum(&self, worker: &mut Worker, groups: &Groups, tiles: Range<usize>, weights: &View<f32>, ready: &[u32]) {
        let (widest, pairs) = (tiles.len() * widths(self.isa)[0], tiles.len() * groups.order.len());
        let bytes = Carver::bytes::<[f32; TILE]>(widest) + Carver::bytes::<[f32; TILE]>(pairs);
        let mut carver = worker.scratch.carve(bytes);
        let (products, own) = (carver.take::<[f32; TILE]>(widest), carver.take::<[f32; TILE]>(pairs));
        for pass in &groups.passes {
            let products = &mut products[..tiles.len() * pass.width];
            self.product(&self.stacks[0], tiles.clone(), pass, ready, products);
            for (tile, values) in products.chunks_exact(pass.width).enumerate() {
                for (&pair, values) in groups.order[pass.pairs.clone()].iter().zip(values) {
                    own[pair * tiles.len() + tile] = *values;
                }
            }
        }
        // SAFETY: an earlier op wrote the weights.
        let weights = unsafe { weights.all() };
        let slots = own.chunks_exact(self.slots * tiles.len()).zip(weights.chunks_exact(self.slots));
        for (row, (own, weights)) in (0..self.rows).zip(slots) {
            for (i, tile) in tiles.clone().enumerate() {
                let mut sums = [0.0; TILE];
                for (values, weight) in own[i..].iter().step_by(tiles.len()).zip(weights) {
                    sums.iter_mut().zip(values).for_each(|(sum, y)| *sum += weight * y);
                }
                let at = (row * self.tiles + tile) * TILE;
                // SAFETY: the features of a tile are written by the one worker that took it.
                let to = unsafe { self.out.get_mut(at..at + TILE) };
                to.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
            }
        }
    }
}
