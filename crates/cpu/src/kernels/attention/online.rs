use super::{BLOCK, Element as _, GROUP, NO_SCORE, PAGE, PART, Pages, Tile, merge_rows};
use crate::simd::{Kernel, LANES, Simd, lanes, lanes_mut};
use bytemuck::Zeroable as _;
use std::ops::Range;

/// Runs the rows of `tile` over the keys of `parts`.
pub(crate) struct Attention<'t, 'a, P> {
    pub(crate) tile: &'t mut Tile<'a>,
    pub(crate) pages: &'t P,
    pub(crate) parts: Range<usize>,
}

impl<P: Pages> Kernel for Attention<'_, '_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { tile, pages, parts } = self;
        let span = tile.span();
        for part in parts {
            tile.top.fill(NO_SCORE);
            tile.sums.fill(0.0);
            tile.acc.fill(0.0);
            let (from, to) = (span.start.max(part * PART), span.end.min((part + 1) * PART));
            for block in from / BLOCK..to.div_ceil(BLOCK) {
                let base = block * BLOCK;
                let count = to.min(base + BLOCK) - base;
                widen_block(simd, tile, pages, base, count);
                attend_block(simd, tile, base, count);
            }
            fold_part(simd, tile);
        }
    }
}

/// Widens the `count` keys and values from `base`; whole pages of keys, so that lanes beyond `count` hold whatever lies there.
#[inline(always)]
fn widen_block<S: Simd, P: Pages>(simd: S, tile: &mut Tile<'_>, pages: &P, base: usize, count: usize) {
    let (dim, width) = (tile.shape.head_dim, tile.shape.width());
    for page in 0..count.div_ceil(PAGE) {
        let (keys, values) = pages.page(base / PAGE + page);
        let to = &mut tile.keys[page * dim * LANES..][..dim * LANES];
        for (to, from) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(keys.as_chunks::<LANES>().0) {
            simd.store(to, P::Value::widen(simd, from));
        }
        for token in 0..PAGE.min(count - page * PAGE) {
            let from = &values[token * dim..][..dim];
            let to = &mut tile.values[(page * PAGE + token) * width..][..width];
            let (to, _) = to.as_chunks_mut::<LANES>();
            let (from, rest) = from.as_chunks::<LANES>();
            for (to, from) in to.iter_mut().zip(from) {
                simd.store(to, P::Value::widen(simd, from));
            }
            if !rest.is_empty() {
                let mut padded = [P::Value::zeroed(); LANES];
                padded[..rest.len()].copy_from_slice(rest);
                simd.store(&mut to[from.len()], P::Value::widen(simd, &padded));
            }
        }
    }
}

/// Attends to one block of keys for all rows, group by group.
#[inline(always)]
fn attend_block<S: Simd>(simd: S, tile: &mut Tile<'_>, base: usize, count: usize) {
    let group = if S::REGISTERS >= 32 { GROUP } else { GROUP / 2 };
    for row in (0..tile.shape.rows).step_by(group) {
        match group.min(tile.shape.rows - row) {
            1 => attend_group::<S, 1>(simd, tile, row, base, count),
            2 => attend_group::<S, 2>(simd, tile, row, base, count),
            3 => attend_group::<S, 3>(simd, tile, row, base, count),
            4 => attend_group::<S, 4>(simd, tile, row, base, count),
            5 => attend_group::<S, 5>(simd, tile, row, base, count),
            6 => attend_group::<S, 6>(simd, tile, row, base, count),
            7 => attend_group::<S, 7>(simd, tile, row, base, count),
            _ => attend_group::<S, 8>(simd, tile, row, base, count),
        }
    }
}

#[inline(always)]
fn attend_group<S: Simd, const R: usize>(simd: S, tile: &mut Tile<'_>, row: usize, base: usize, count: usize) {
    let mut sees = [(0, 0); R];
    for (r, sees) in sees.iter_mut().enumerate() {
        *sees = (tile.sees[2 * (row + r)] as usize, tile.sees[2 * (row + r) + 1] as usize);
    }
    if sees.iter().all(|&(from, to)| to <= base || from >= base + count) {
        return;
    }
    for page in 0..count.div_ceil(PAGE) {
        scores::<S, R>(simd, tile, row, page);
    }
    for (r, &(from, to)) in sees.iter().enumerate() {
        let hidden = &mut tile.scores[r * BLOCK..(r + 1) * BLOCK];
        hidden[to.saturating_sub(base).min(BLOCK)..].fill(f32::NEG_INFINITY);
        hidden[..from.saturating_sub(base).min(BLOCK)].fill(f32::NEG_INFINITY);
        soften(simd, tile, row + r, r);
    }
    let vectors = tile.shape.width() / LANES;
    let mut at = 0;
    if S::REGISTERS >= 32 {
        while at + 2 <= vectors {
            weigh::<S, R, 2>(simd, tile, row, at, count);
            at += 2;
        }
    }
    while at < vectors {
        weigh::<S, R, 1>(simd, tile, row, at, count);
        at += 1;
    }
}

/// Scores of `R` rows with the 16 keys of a page.
#[inline(always)]
fn scores<S: Simd, const R: usize>(simd: S, tile: &mut Tile<'_>, row: usize, page: usize) {
    let (dim, width) = (tile.shape.head_dim, tile.shape.width());
    let keys = tile.keys[page * dim * LANES..][..dim * LANES].as_chunks::<LANES>().0;
    let mut queries = [&[][..]; R];
    for (r, query) in queries.iter_mut().enumerate() {
        *query = &tile.queries[(row + r) * width..][..keys.len()];
    }
    let mut acc = [simd.splat(0.0); R];
    for (i, key) in keys.iter().enumerate() {
        let key = simd.load(key);
        for r in 0..R {
            acc[r] = simd.fma(simd.splat(queries[r][i]), key, acc[r]);
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        simd.store(lanes_mut(tile.scores, r * BLOCK + page * PAGE), *acc);
    }
}

/// Turns the scores of row `row` into weights under the running maximum.
#[inline(always)]
fn soften<S: Simd>(simd: S, tile: &mut Tile<'_>, row: usize, r: usize) {
    let scores = &mut tile.scores[r * BLOCK..(r + 1) * BLOCK];
    let mut highest = simd.load(lanes(scores, 0));
    for at in (LANES..BLOCK).step_by(LANES) {
        highest = simd.max(highest, simd.load(lanes(scores, at)));
    }
    let (old, highest) = (tile.top[row], simd.top(highest));
    let top = if highest > old { highest } else { old };
    let shift = simd.splat(top);
    let mut block = simd.splat(0.0);
    for at in (0..BLOCK).step_by(LANES) {
        let weights = simd.exp2(simd.sub(simd.load(lanes(scores, at)), shift));
        simd.store(lanes_mut(scores, at), weights);
        block = simd.add(block, weights);
    }
    let sums = lanes_mut(tile.sums, row * LANES);
    let mut sum = simd.load(sums);
    if top > old {
        let correction = simd.exp2(simd.splat(old - top));
        sum = simd.mul(sum, correction);
        let width = tile.shape.width();
        for acc in tile.acc[row * width..(row + 1) * width].as_chunks_mut::<LANES>().0 {
            let scaled = simd.mul(simd.load(acc), correction);
            simd.store(acc, scaled);
        }
        tile.top[row] = top;
    }
    simd.store(sums, simd.add(sum, block));
}

/// Adds the weighted values, `C` vectors of them from vector `at`.
#[inline(always)]
fn weigh<S: Simd, const R: usize, const C: usize>(simd: S, tile: &mut Tile<'_>, row: usize, at: usize, count: usize) {
    let width = tile.shape.width();
    let place = |r: usize, c: usize| (row + r) * width + (at + c) * LANES;
    // Loops rather than `from_fn`: its closures would be compiled without the instruction set.
    let mut acc = [[simd.splat(0.0); C]; R];
    for (r, acc) in acc.iter_mut().enumerate() {
        for (c, acc) in acc.iter_mut().enumerate() {
            *acc = simd.load(lanes(tile.acc, place(r, c)));
        }
    }
    let mut weights = [&[][..]; R];
    for (r, weights) in weights.iter_mut().enumerate() {
        *weights = &tile.scores[r * BLOCK..][..count];
    }
    for (key, values) in tile.values.chunks_exact(width).take(count).enumerate() {
        let mut value = [simd.splat(0.0); C];
        for (c, value) in value.iter_mut().enumerate() {
            *value = simd.load(lanes(values, (at + c) * LANES));
        }
        for r in 0..R {
            let weight = simd.splat(weights[r][key]);
            for c in 0..C {
                acc[r][c] = simd.fma(weight, value[c], acc[r][c]);
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (c, acc) in acc.iter().enumerate() {
            simd.store(lanes_mut(tile.acc, place(r, c)), *acc);
        }
    }
}

/// Merges the part at hand into the total.
#[inline(always)]
fn fold_part<S: Simd>(simd: S, tile: &mut Tile<'_>) {
    let width = tile.shape.width();
    for row in 0..tile.shape.rows {
        let sum = simd.sum(simd.load(lanes(tile.sums, row * LANES)));
        let values = row * width..(row + 1) * width;
        merge_rows(
            (&mut tile.total_top[row], &mut tile.total_sum[row], &mut tile.total[values.clone()]),
            (tile.top[row], sum, &tile.acc[values]),
        );
    }
}
