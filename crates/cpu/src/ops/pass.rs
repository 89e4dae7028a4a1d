//! Passes: tokens that are multiplied together, as many as registers hold.

use super::weight::PackedWeight;
use crate::kernels::matmul::{InputFormat, Product, TILE, multiply};
use crate::simd::Isa;
use mlx_serving_device::Arithmetic;
use std::ops::Range;

/// Features that several tiles are multiplied by at a time: few enough for the nearest cache (9 KB of
/// 4-bit weights, 12 KB of inputs for twelve tokens). Not measured against other lengths.
const SEGMENT: usize = 1024;

/// Rows that are multiplied together.
pub(super) struct Pass {
    pub(super) rows: Range<usize>,
    /// Rows that the kernel takes; those beyond `rows` are nobody's.
    pub(super) width: usize,
    /// Widths of the passes before.
    pub(super) start: usize,
}

/// Cuts `rows` into passes of the widths that kernels have: the widest, then the narrowest that takes the rest.
pub(super) fn passes(rows: usize, widths: &[usize]) -> Vec<Pass> {
    let (mut passes, mut row, mut start) = (Vec::new(), 0, 0);
    while row < rows {
        let left = rows - row;
        let width = *widths.iter().rev().find(|&&width| width >= left).unwrap_or(&widths[0]);
        let count = width.min(left);
        passes.push(Pass { rows: row..row + count, width, start });
        (row, start) = (row + count, start + width);
    }
    passes
}

/// Tokens of a pass, made ready.
pub(super) struct Ready<'a> {
    pub(super) format: InputFormat,
    /// Features of a token.
    pub(super) cols: usize,
    /// Tokens that the kernel takes.
    pub(super) width: usize,
    /// All their words.
    pub(super) x: &'a [u32],
}

impl Ready<'_> {
    /// to = the products of some tiles of a weight with the tokens: [tiles][width][16].
    pub(super) fn product(
        &self,
        isa: Isa,
        arithmetic: Arithmetic,
        weight: &PackedWeight,
        tiles: Range<usize>,
        to: &mut [[f32; TILE]],
    ) {
        to.fill([0.0; TILE]);
        let (layout, width) = (&weight.layout, self.width);
        let steps = self.cols.div_ceil(layout.step());
        let words = self.format.words(self.cols);
        let tiles = weight.tiles(tiles);
        // One token reads its weights as one stream; several share a segment of them.
        let segment = if width == 1 { steps } else { SEGMENT / layout.step() };
        for first in (0..steps).step_by(segment) {
            let steps = first..(first + segment).min(steps);
            let word = |step: usize| (step * self.format.step_words()).min(words) * width;
            let x = &self.x[word(steps.start)..word(steps.end)];
            multiply(isa, Product { layout, arithmetic, tiles, steps, x, width, y: to });
        }
    }
}
