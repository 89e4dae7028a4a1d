//! Attention of some query rows of one key/value head over its cached keys: online softmax (arXiv:1805.02867) over blocks of 64
//! keys at absolute positions, in parts of 512 that start afresh and are merged in order.
//!
//! A row's result depends on its own query and keys only: in which tile or task it runs changes no bit of it.

mod online;

use crate::scratch::Carver;
use crate::simd::{Kernel, LANES, Simd};
use std::ops::Range;

pub(crate) use online::Attention;

/// Keys of one step of the online softmax. Not measured.
pub(crate) const BLOCK: usize = 64;
/// Keys of one part. Part of what a row's bits are: another length gives other sums. Not measured.
pub(crate) const PART: usize = 512;
/// Tokens of a page's smallest unit: keys lie [head_dim][16], values [16][head_dim].
pub(crate) const PAGE: usize = LANES;
/// The maximum of no scores: finite, so that differences stay numbers.
const NO_SCORE: f32 = -1e30;

/// A value of the cache.
pub(crate) trait Element: bytemuck::Pod + Send + Sync {
    fn widen<S: Simd>(simd: S, from: &[Self; LANES]) -> S::F;
    fn narrow<S: Simd>(simd: S, to: &mut [Self; LANES], x: S::F);
}

impl Element for u16 {
    #[inline(always)]
    fn widen<S: Simd>(simd: S, from: &[Self; LANES]) -> S::F {
        simd.load_f16(from)
    }
    #[inline(always)]
    fn narrow<S: Simd>(simd: S, to: &mut [Self; LANES], x: S::F) {
        simd.store_f16(to, x);
    }
}

impl Element for f32 {
    #[inline(always)]
    fn widen<S: Simd>(simd: S, from: &[Self; LANES]) -> S::F {
        simd.load(from)
    }
    #[inline(always)]
    fn narrow<S: Simd>(simd: S, to: &mut [Self; LANES], x: S::F) {
        simd.store(to, x);
    }
}

/// Narrows some values for the cache.
pub(crate) struct Narrow<'a, E> {
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut [E],
}

impl<E: Element> Kernel for Narrow<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (from, rest) = self.from.as_chunks::<LANES>();
        let (to, tail) = self.to.as_chunks_mut::<LANES>();
        for (to, from) in to.iter_mut().zip(from) {
            E::narrow(simd, to, simd.load(from));
        }
        if !rest.is_empty() {
            let (mut wide, mut narrow) = ([0.0; LANES], [E::zeroed(); LANES]);
            wide[..rest.len()].copy_from_slice(rest);
            E::narrow(simd, &mut narrow, simd.load(&wide));
            tail.copy_from_slice(&narrow[..rest.len()]);
        }
    }
}

/// Keys and values of one head of one sequence.
pub(crate) trait Pages {
    type Value: Element;
    /// Keys of the 16 tokens from `16 · page`, [head_dim][16], and values, [16][head_dim].
    fn page(&self, page: usize) -> (&[Self::Value], &[Self::Value]);
}

/// Sizes of a tile of query rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileShape {
    /// Query rows.
    pub(crate) rows: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
}

impl TileShape {
    /// Head width in whole vectors.
    pub(crate) fn width(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Scratch that a [`Tile`] takes.
    pub(crate) fn bytes(self) -> usize {
        let (rows, width) = (self.rows, self.width());
        Carver::bytes::<f32>(rows * width) * 3
            + Carver::bytes::<f32>(rows * LANES)
            + Carver::bytes::<f32>(rows) * 3
            + Carver::bytes::<u32>(rows * 2)
            + Carver::bytes::<f32>(BLOCK * width) * 2
            + Carver::bytes::<f32>(BLOCK * GROUP)
    }
}

/// Rows that share the registers at most. Not measured.
const GROUP: usize = 8;

/// A tile of query rows with its running softmax.
pub(crate) struct Tile<'a> {
    shape: TileShape,
    /// [rows][width]: queries times scale · log2(e); zeros beyond head_dim.
    pub(crate) queries: &'a mut [f32],
    /// [rows][2]: the keys that each row sees, from and up to.
    pub(crate) sees: &'a mut [u32],
    /// State of the part at hand: maximum, sums of weights, weighted values.
    top: &'a mut [f32],
    sums: &'a mut [f32],
    acc: &'a mut [f32],
    /// State of all finished parts: maximum, sum of weights, weighted values.
    total_top: &'a mut [f32],
    total_sum: &'a mut [f32],
    total: &'a mut [f32],
    keys: &'a mut [f32],
    values: &'a mut [f32],
    scores: &'a mut [f32],
}

impl<'a> Tile<'a> {
    /// Carves a tile that has seen nothing yet.
    pub(crate) fn new(shape: TileShape, carver: &mut Carver<'a>) -> Self {
        let (rows, width) = (shape.rows, shape.width());
        let mut tile = Self {
            shape,
            queries: carver.take(rows * width),
            sees: carver.take(rows * 2),
            top: carver.take(rows),
            sums: carver.take(rows * LANES),
            acc: carver.take(rows * width),
            total_top: carver.take(rows),
            total_sum: carver.take(rows),
            total: carver.take(rows * width),
            keys: carver.take(BLOCK * width),
            values: carver.take(BLOCK * width),
            scores: carver.take(BLOCK * GROUP),
        };
        tile.queries.fill(0.0);
        tile.forget();
        tile
    }

    /// Forgets all results.
    pub(crate) fn forget(&mut self) {
        self.total_top.fill(NO_SCORE);
        self.total_sum.fill(0.0);
        self.total.fill(0.0);
    }

    /// See [`TileShape::width`].
    pub(crate) fn width(&self) -> usize {
        self.shape.width()
    }

    /// The keys that any row sees.
    fn span(&self) -> Range<usize> {
        let from = self.sees.iter().step_by(2).min().copied().unwrap_or(0);
        let to = self.sees.iter().skip(1).step_by(2).max().copied().unwrap_or(0);
        from as usize..to as usize
    }

    /// Numbers of the parts that any row sees.
    pub(crate) fn parts(&self) -> Range<usize> {
        let span = self.span();
        span.start / PART..span.end.div_ceil(PART)
    }

    /// Row `row` as a partial result: maximum, sum of weights, weighted values.
    pub(crate) fn partial(&self, row: usize) -> (f32, f32, &[f32]) {
        let width = self.shape.width();
        (self.total_top[row], self.total_sum[row], &self.total[row * width..(row + 1) * width])
    }

    /// Merges a partial result of later keys into row `row`.
    pub(crate) fn merge(&mut self, row: usize, top: f32, sum: f32, values: &[f32]) {
        let width = self.shape.width();
        merge_rows(
            (&mut self.total_top[row], &mut self.total_sum[row], &mut self.total[row * width..(row + 1) * width]),
            (top, sum, values),
        );
    }

    /// Writes the finished row `row`: weighted mean of the values.
    pub(crate) fn finish(&self, row: usize, out: &mut [f32]) {
        let (_, sum, values) = self.partial(row);
        for (out, x) in out.iter_mut().zip(values) {
            *out = x / sum;
        }
    }
}

#[inline(always)]
fn merge_rows(total: (&mut f32, &mut f32, &mut [f32]), part: (f32, f32, &[f32])) {
    if part.1 == 0.0 {
        return;
    }
    let top = if part.0 > *total.0 { part.0 } else { *total.0 };
    let (old, new) = if *total.1 == 0.0 { (0.0, 1.0) } else { ((*total.0 - top).exp2(), (part.0 - top).exp2()) };
    for (t, p) in total.2.iter_mut().zip(part.2) {
        *t = *t * old + p * new;
    }
    *total.1 = *total.1 * old + part.1 * new;
    *total.0 = top;
}
