//! The products themselves, written once for all instruction sets.

use super::layout::{CHUNK, DENSE_STEP, Line, TILE, TileLayout, codes, step_lines};
use super::micro;
use crate::simd::{Isa, Kernel, LANES, Simd, lanes, vectorize};
use mlx_serving_device::{Arithmetic, Float, WeightFormat};
use std::marker::PhantomData;
use std::ops::Range;

/// Distance ahead of a single token's product at which its weights are asked for, bytes. A proof of this kernel in C (November 2026, two Zen 4
/// cores, 278 MB of 4-bit weights in huge pages; no record kept) read 25 GB/s with 3.5 to 4.6 KB and 22 GB/s with none on one thread;
/// two threads, at 30.6 GB/s, gained nothing.
const AHEAD: usize = 4096;

/// Numbers of tokens that `isa`'s registers serve at once: the widths of passes, widest first. Twelve is what 32 registers hold without
/// spilling: 315 to 377 GMAC/s on two threads in the same proof in C as [`AHEAD`]'s. The others are not measured; `cargo bench --bench
/// linear` shows the crate's own speed.
pub(crate) fn widths(isa: Isa) -> &'static [usize] {
    match isa {
        Isa::Avx512 => &[12, 8, 4, 1],
        _ => &[4, 1],
    }
}

/// Product of some tiles of a weight and one pass of tokens, over some steps of the features.
pub(crate) struct Product<'a> {
    pub(crate) layout: &'a TileLayout,
    pub(crate) arithmetic: Arithmetic,
    /// Whole tiles.
    pub(crate) tiles: &'a [Line],
    pub(crate) steps: Range<usize>,
    /// Inputs of these steps of the pass, as [`super::Prepare`] leaves them.
    pub(crate) x: &'a [u32],
    /// Tokens of the pass, one of [`widths`].
    pub(crate) width: usize,
    /// [tiles][width][16]: added to.
    pub(crate) y: &'a mut [[f32; TILE]],
}

/// Adds the products to `y`.
pub(crate) fn multiply(isa: Isa, product: Product<'_>) {
    match (product.layout.spec.format, product.arithmetic) {
        (WeightFormat::Dense(Float::F32), _) => vectorize(isa, Plain::<Full>(product, PhantomData)),
        (WeightFormat::Dense(Float::F16), _) => vectorize(isa, Plain::<Half>(product, PhantomData)),
        (WeightFormat::Dense(Float::Bf16), _) => vectorize(isa, Plain::<Brain>(product, PhantomData)),
        (WeightFormat::Micro(format), arithmetic) => micro::multiply(isa, format, arithmetic, product),
        (WeightFormat::Affine { bits, group, scale }, arithmetic) => {
            let groups = Groups { group: group as usize, scale };
            match (arithmetic, bits) {
                (Arithmetic::Fast, 2) => vectorize(isa, Rounded::<2>(product, groups)),
                (Arithmetic::Fast, 3) => vectorize(isa, Rounded::<3>(product, groups)),
                (Arithmetic::Fast, 4) => vectorize(isa, Rounded::<4>(product, groups)),
                (Arithmetic::Fast, 5) => vectorize(isa, Rounded::<5>(product, groups)),
                (Arithmetic::Fast, 6) => vectorize(isa, Rounded::<6>(product, groups)),
                (Arithmetic::Fast, _) => vectorize(isa, Rounded::<8>(product, groups)),
                (Arithmetic::Exact, 2) => vectorize(isa, Exact::<2>(product, groups)),
                (Arithmetic::Exact, 3) => vectorize(isa, Exact::<3>(product, groups)),
                (Arithmetic::Exact, 4) => vectorize(isa, Exact::<4>(product, groups)),
                (Arithmetic::Exact, 5) => vectorize(isa, Exact::<5>(product, groups)),
                (Arithmetic::Exact, 6) => vectorize(isa, Exact::<6>(product, groups)),
                (Arithmetic::Exact, _) => vectorize(isa, Exact::<8>(product, groups)),
            }
        }
    }
}

/// Runs a function compiled for the pass's width.
macro_rules! by_width {
    ($width:expr, $function:ident::<$($type:tt),+>($($argument:expr),+)) => {
        match $width {
            1 => $function::<$($type),+, 1>($($argument),+),
            4 => $function::<$($type),+, 4>($($argument),+),
            8 if S::REGISTERS >= 32 => $function::<$($type),+, 8>($($argument),+),
            12 if S::REGISTERS >= 32 => $function::<$($type),+, 12>($($argument),+),
            width => unreachable!("a pass of {width} tokens"),
        }
    };
}
pub(super) use by_width;

/// Differences between tiles of one bit width.
#[derive(Clone, Copy)]
struct Groups {
    group: usize,
    scale: Float,
}

impl Groups {
    /// The scales and biases of a group.
    #[inline(always)]
    fn sides<S: Simd>(self, simd: S, lines: &[Line]) -> (S::F, S::F) {
        match self.scale {
            Float::F32 => (simd.load(bytemuck::cast_ref(&lines[0])), simd.load(bytemuck::cast_ref(&lines[1]))),
            Float::F16 => {
                let halves: &[u16; 2 * LANES] = bytemuck::cast_ref(&lines[0]);
                (simd.load_f16(lanes(halves, 0)), simd.load_f16(lanes(halves, LANES)))
            }
            Float::Bf16 => {
                let halves: &[u16; 2 * LANES] = bytemuck::cast_ref(&lines[0]);
                (simd.load_bf16(lanes(halves, 0)), simd.load_bf16(lanes(halves, LANES)))
            }
        }
    }
}

/// Codes times tokens of 8 bits.
struct Rounded<'a, const BITS: usize>(Product<'a>, Groups);

impl<const BITS: usize> Kernel for Rounded<'_, BITS> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        by_width!(self.0.width, rounded::<S, BITS>(simd, self.0, self.1));
    }
}

#[inline(always)]
fn rounded<S: Simd, const BITS: usize, const T: usize>(simd: S, product: Product<'_>, groups: Groups) {
    let Product { layout, tiles, steps, x, y, .. } = product;
    let (step, code_lines) = (step_lines(layout.spec.format), groups.group / CHUNK * BITS);
    // Of a block, which has a scale of its own.
    let chunks = if groups.group == CHUNK { 1 } else { 2 };
    let x = x.as_chunks::<T>().0;
    for (tile, y) in tiles.chunks_exact(layout.lines).zip(y.as_chunks_mut::<T>().0) {
        let mut sums = load_sums(simd, y);
        let lines = &tile[layout.step_range(steps.clone())];
        for (group, x) in
            lines.chunks_exact(step).zip(x.chunks_exact(groups.group / 4 + code_lines / BITS / chunks * 2))
        {
            if T == 1 {
                ask_ahead(simd, group);
            }
            let (codes, sides) = group.split_at(code_lines);
            let (scale, bias) = groups.sides(simd, sides);
            for (codes, x) in codes.chunks_exact(chunks * BITS).zip(x.chunks_exact(8 * chunks + 2)) {
                let (x, factors) = x.split_at(8 * chunks);
                let mut acc = [simd.zero(); T];
                for (codes, x) in codes.as_chunks::<BITS>().0.iter().zip(x.as_chunks::<8>().0) {
                    dot::<S, BITS, T, 0>(simd, &mut acc, codes, x);
                    dot::<S, BITS, T, 2>(simd, &mut acc, codes, x);
                    dot::<S, BITS, T, 4>(simd, &mut acc, codes, x);
                    dot::<S, BITS, T, 6>(simd, &mut acc, codes, x);
                }
                for t in 0..T {
                    let factor = simd.splat(f32::from_bits(factors[0][t]));
                    let offset = simd.splat(f32::from_bits(factors[1][t]));
                    let sum = simd.fma(simd.float(acc[t]), simd.mul(scale, factor), sums[t]);
                    sums[t] = simd.fma(bias, offset, sum);
                }
            }
        }
        store_sums(simd, y, sums);
    }
}

/// Vectors `V` and `V + 1` of a chunk times all tokens.
#[inline(always)]
fn dot<S: Simd, const BITS: usize, const T: usize, const V: usize>(
    simd: S,
    acc: &mut [S::I; T],
    chunk: &[Line; BITS],
    x: &[[u32; T]; 8],
) {
    let pair = [codes::<S, BITS>(simd, chunk, V), codes::<S, BITS>(simd, chunk, V + 1)];
    for t in 0..T {
        let x = [x[V][t], x[V + 1][t]];
        acc[t] = if BITS == 8 { simd.dot_wide(acc[t], pair, x) } else { simd.dot(acc[t], pair, x) };
    }
}

/// Codes times tokens in `f32`.
struct Exact<'a, const BITS: usize>(Product<'a>, Groups);

impl<const BITS: usize> Kernel for Exact<'_, BITS> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        by_width!(self.0.width, exact::<S, BITS>(simd, self.0, self.1));
    }
}

#[inline(always)]
fn exact<S: Simd, const BITS: usize, const T: usize>(simd: S, product: Product<'_>, groups: Groups) {
    let Product { layout, tiles, steps, x, y, .. } = product;
    let (step, code_lines) = (step_lines(layout.spec.format), groups.group / CHUNK * BITS);
    let x = x.as_chunks::<T>().0;
    for (tile, y) in tiles.chunks_exact(layout.lines).zip(y.as_chunks_mut::<T>().0) {
        let mut sums = load_sums(simd, y);
        let lines = &tile[layout.step_range(steps.clone())];
        for (group, x) in lines.chunks_exact(step).zip(x.chunks_exact(groups.group + 1)) {
            if T == 1 {
                ask_ahead(simd, group);
            }
            let (codes, sides) = group.split_at(code_lines);
            let (x, offsets) = x.split_at(groups.group);
            let mut acc = [[simd.splat(0.0); 2]; T];
            for (codes, x) in codes.as_chunks::<BITS>().0.iter().zip(x.as_chunks::<CHUNK>().0) {
                fma::<S, BITS, T, 0>(simd, &mut acc, codes, x);
                fma::<S, BITS, T, 1>(simd, &mut acc, codes, x);
                fma::<S, BITS, T, 2>(simd, &mut acc, codes, x);
                fma::<S, BITS, T, 3>(simd, &mut acc, codes, x);
                fma::<S, BITS, T, 4>(simd, &mut acc, codes, x);
                fma::<S, BITS, T, 5>(simd, &mut acc, codes, x);
                fma::<S, BITS, T, 6>(simd, &mut acc, codes, x);
                fma::<S, BITS, T, 7>(simd, &mut acc, codes, x);
            }
            let (scale, bias) = groups.sides(simd, sides);
            for t in 0..T {
                let sum = simd.fma(scale, simd.add(acc[t][0], acc[t][1]), sums[t]);
                sums[t] = simd.fma(bias, simd.splat(f32::from_bits(offsets[0][t])), sum);
            }
        }
        store_sums(simd, y, sums);
    }
}

/// Vector `V` of a chunk times all tokens; the sums of two bytes side by side, so that no addition waits for the last.
#[inline(always)]
fn fma<S: Simd, const BITS: usize, const T: usize, const V: usize>(
    simd: S,
    acc: &mut [[S::F; 2]; T],
    chunk: &[Line; BITS],
    x: &[[u32; T]; CHUNK],
) {
    let codes = codes::<S, BITS>(simd, chunk, V);
    let bytes = [simd.byte(codes, 0), simd.byte(codes, 1), simd.byte(codes, 2), simd.byte(codes, 3)];
    for (at, byte) in bytes.iter().enumerate() {
        for t in 0..T {
            let x = simd.splat(f32::from_bits(x[4 * V + at][t]));
            acc[t][at % 2] = simd.fma(*byte, x, acc[t][at % 2]);
        }
    }
}

/// A type of dense values.
trait Value {
    /// Features of a line.
    const PER_LINE: usize;
    /// Feature `at` of a line.
    fn load<S: Simd>(simd: S, line: &Line, at: usize) -> S::F;
}

struct Full;
struct Half;
struct Brain;

impl Value for Full {
    const PER_LINE: usize = 1;
    #[inline(always)]
    fn load<S: Simd>(simd: S, line: &Line, _at: usize) -> S::F {
        simd.load(bytemuck::cast_ref(line))
    }
}

impl Value for Half {
    const PER_LINE: usize = 2;
    #[inline(always)]
    fn load<S: Simd>(simd: S, line: &Line, at: usize) -> S::F {
        simd.load_f16(lanes(bytemuck::cast_ref::<Line, [u16; 2 * LANES]>(line), at * LANES))
    }
}

impl Value for Brain {
    const PER_LINE: usize = 2;
    #[inline(always)]
    fn load<S: Simd>(simd: S, line: &Line, at: usize) -> S::F {
        simd.load_bf16(lanes(bytemuck::cast_ref::<Line, [u16; 2 * LANES]>(line), at * LANES))
    }
}

/// Plain values times tokens in `f32`.
struct Plain<'a, V>(Product<'a>, PhantomData<V>);

impl<V: Value> Kernel for Plain<'_, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        by_width!(self.0.width, plain::<S, V>(simd, self.0));
    }
}

#[inline(always)]
fn plain<S: Simd, V: Value, const T: usize>(simd: S, product: Product<'_>) {
    let Product { layout, tiles, steps, x, y, .. } = product;
    let x = x.as_chunks::<T>().0;
    for (tile, y) in tiles.chunks_exact(layout.lines).zip(y.as_chunks_mut::<T>().0) {
        let mut sums = load_sums(simd, y);
        let lines = &tile[layout.step_range(steps.clone())];
        for (lines, x) in lines.chunks(DENSE_STEP / V::PER_LINE).zip(x.chunks(DENSE_STEP)) {
            if T == 1 {
                ask_ahead(simd, lines);
            }
            let mut acc = [[simd.splat(0.0); 2]; T];
            let (pairs, last) = x.as_chunks::<2>();
            for (lines, x) in lines.chunks_exact(2 / V::PER_LINE).zip(pairs) {
                let values = [V::load(simd, &lines[0], 0), V::load(simd, &lines[lines.len() - 1], V::PER_LINE - 1)];
                for (at, value) in values.iter().enumerate() {
                    for t in 0..T {
                        acc[t][at] = simd.fma(*value, simd.splat(f32::from_bits(x[at][t])), acc[t][at]);
                    }
                }
            }
            if let ([x], Some(line)) = (last, lines.last()) {
                let value = V::load(simd, line, 0);
                for t in 0..T {
                    acc[t][0] = simd.fma(value, simd.splat(f32::from_bits(x[t])), acc[t][0]);
                }
            }
            for t in 0..T {
                sums[t] = simd.add(sums[t], simd.add(acc[t][0], acc[t][1]));
            }
        }
        store_sums(simd, y, sums);
    }
}

#[inline(always)]
pub(super) fn load_sums<S: Simd, const T: usize>(simd: S, y: &[[f32; TILE]; T]) -> [S::F; T] {
    let mut sums = [simd.splat(0.0); T];
    for (sum, y) in sums.iter_mut().zip(y) {
        *sum = simd.load(y);
    }
    sums
}

#[inline(always)]
pub(super) fn store_sums<S: Simd, const T: usize>(simd: S, y: &mut [[f32; TILE]; T], sums: [S::F; T]) {
    for (y, sum) in y.iter_mut().zip(sums) {
        simd.store(y, sum);
    }
}

/// Asks for what lies [`AHEAD`] of these lines, of this tile or the next.
#[inline(always)]
pub(super) fn ask_ahead<S: Simd>(simd: S, lines: &[Line]) {
    for line in lines {
        simd.prefetch(line.as_ptr().cast::<u8>().wrapping_add(AHEAD));
    }
}

/// Asks for lines that will be read soon.
pub(crate) struct AskAhead<'a>(pub(crate) &'a [Line]);

impl Kernel for AskAhead<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.0.iter().for_each(|line| simd.prefetch(line.as_ptr().cast()));
    }
}
