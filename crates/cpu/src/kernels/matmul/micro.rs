//! Products with small floats.
//!
//! A code of 4 bits, doubled, is an integer from −12 to 12. One look-up makes it a byte c = 2v + 12, which the products of affine codes
//! take: Σ w·x = s/2 · (Σ c·x − 12·Σ x). A code of 8 bits is a float in its upper bits, but for the exponent's offset.

use super::layout::{Line, TILE, step_lines};
use super::product::{Product, ask_ahead, by_width, load_sums, store_sums};
use crate::simd::{Isa, Kernel, LANES, Simd, lanes, vectorize};
use mlx_serving_device::{Arithmetic, Micro};

/// Twice the value of each code of 4 bits, above [`OFFSET`].
const DOUBLED: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];
const OFFSET: f32 = 12.0;
/// 2^(127 − 7): the exponent of an `f32` counts from −127, that of a code of 8 bits from −7.
const RAISE: f32 = f32::from_bits((127 + 120) << 23);

/// Adds the products to `y`.
pub(super) fn multiply(isa: Isa, format: Micro, arithmetic: Arithmetic, product: Product<'_>) {
    match (format, arithmetic) {
        (Micro::Mxfp4, Arithmetic::Fast) => vectorize(isa, Rounded::<32>(product)),
        (Micro::Nvfp4, Arithmetic::Fast) => vectorize(isa, Rounded::<16>(product)),
        (Micro::Mxfp4, Arithmetic::Exact) => vectorize(isa, Exact::<32>(product)),
        (Micro::Nvfp4, Arithmetic::Exact) => vectorize(isa, Exact::<16>(product)),
        (Micro::Mxfp8, _) => vectorize(isa, Bytes(product)),
    }
}

/// Codes of 4 bits in groups of `GROUP` times tokens of 8 bits.
struct Rounded<'a, const GROUP: usize>(Product<'a>);

impl<const GROUP: usize> Kernel for Rounded<'_, GROUP> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        by_width!(self.0.width, rounded::<S, GROUP>(simd, self.0));
    }
}

#[inline(always)]
fn rounded<S: Simd, const GROUP: usize, const T: usize>(simd: S, product: Product<'_>) {
    let Product { layout, tiles, steps, x, y, .. } = product;
    let (step, block_words) = (step_lines(layout.spec.format), GROUP / 4 + 2);
    let x = x.as_chunks::<T>().0;
    let offset = simd.splat(-OFFSET);
    for (tile, y) in tiles.chunks_exact(layout.lines).zip(y.as_chunks_mut::<T>().0) {
        let mut sums = load_sums(simd, y);
        let lines = &tile[layout.step_range(steps.clone())];
        for (lines, x) in lines.chunks(step).zip(x.chunks(2 * block_words)) {
            if T == 1 {
                ask_ahead(simd, lines);
            }
            let (sides, codes) = (sides(&lines[0]), &lines[1..]);
            for (group, (codes, x)) in codes.chunks_exact(GROUP / 8).zip(x.chunks_exact(block_words)).enumerate() {
                let (x, factors) = x.split_at(GROUP / 4);
                let mut acc = [simd.zero(); T];
                for (line, x) in codes.iter().zip(x.as_chunks::<2>().0) {
                    let pair = doubled(simd, line);
                    for t in 0..T {
                        acc[t] = simd.dot(acc[t], pair, [x[0][t], x[1][t]]);
                    }
                }
                let scale = simd.load_bf16(lanes(sides, group * LANES));
                for t in 0..T {
                    let factor = simd.splat(f32::from_bits(factors[0][t]));
                    let sum = simd.mul(offset, simd.splat(f32::from_bits(factors[1][t])));
                    sums[t] = simd.fma(scale, simd.fma(simd.float(acc[t]), factor, sum), sums[t]);
                }
            }
        }
        store_sums(simd, y, sums);
    }
}

/// Such codes times tokens in `f32`.
struct Exact<'a, const GROUP: usize>(Product<'a>);

impl<const GROUP: usize> Kernel for Exact<'_, GROUP> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        by_width!(self.0.width, exact::<S, GROUP>(simd, self.0));
    }
}

#[inline(always)]
fn exact<S: Simd, const GROUP: usize, const T: usize>(simd: S, product: Product<'_>) {
    let Product { layout, tiles, steps, x, y, .. } = product;
    let step = step_lines(layout.spec.format);
    let x = x.as_chunks::<T>().0;
    let offset = simd.splat(-OFFSET);
    for (tile, y) in tiles.chunks_exact(layout.lines).zip(y.as_chunks_mut::<T>().0) {
        let mut sums = load_sums(simd, y);
        let lines = &tile[layout.step_range(steps.clone())];
        for (lines, x) in lines.chunks(step).zip(x.chunks(2 * (GROUP + 1))) {
            if T == 1 {
                ask_ahead(simd, lines);
            }
            let (sides, codes) = (sides(&lines[0]), &lines[1..]);
            for (group, (codes, x)) in codes.chunks_exact(GROUP / 8).zip(x.chunks_exact(GROUP + 1)).enumerate() {
                let (x, total) = x.split_at(GROUP);
                let mut acc = [[simd.splat(0.0); 2]; T];
                for (line, x) in codes.iter().zip(x.as_chunks::<8>().0) {
                    let [first, second] = doubled(simd, line);
                    for at in 0..4 {
                        for (codes, x) in [(first, &x[at]), (second, &x[4 + at])] {
                            let byte = simd.byte(codes, at);
                            for t in 0..T {
                                acc[t][at % 2] = simd.fma(byte, simd.splat(f32::from_bits(x[t])), acc[t][at % 2]);
                            }
                        }
                    }
                }
                let scale = simd.load_bf16(lanes(sides, group * LANES));
                for t in 0..T {
                    let total = simd.splat(f32::from_bits(total[0][t]));
                    let sum = simd.fma(offset, total, simd.add(acc[t][0], acc[t][1]));
                    sums[t] = simd.fma(scale, sum, sums[t]);
                }
            }
        }
        store_sums(simd, y, sums);
    }
}

/// The scales of two groups.
#[inline(always)]
fn sides(line: &Line) -> &[u16; 2 * TILE] {
    bytemuck::cast_ref(line)
}

/// The codes of 4 bits of a line as bytes: those of even places, those of odd ones.
#[inline(always)]
fn doubled<S: Simd>(simd: S, line: &Line) -> [S::I; 2] {
    let word = simd.load_words(line);
    let [even, odd] = [simd.field(word, 0, 0x0f0f_0f0f), simd.field(word, 4, 0x0f0f_0f0f)];
    [simd.look_up(even, &DOUBLED), simd.look_up(odd, &DOUBLED)]
}

/// Codes of 8 bits times tokens in `f32`, whatever the arithmetic: they have no common step that a byte could count.
struct Bytes<'a>(Product<'a>);

impl Kernel for Bytes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        by_width!(self.0.width, bytes::<S>(simd, self.0));
    }
}

#[inline(always)]
fn bytes<S: Simd, const T: usize>(simd: S, product: Product<'_>) {
    const GROUP: usize = Micro::Mxfp8.group();
    let Product { layout, tiles, steps, x, y, .. } = product;
    let step = step_lines(layout.spec.format);
    let x = x.as_chunks::<T>().0;
    for (tile, y) in tiles.chunks_exact(layout.lines).zip(y.as_chunks_mut::<T>().0) {
        let mut sums = load_sums(simd, y);
        let lines = &tile[layout.step_range(steps.clone())];
        for (lines, x) in lines.chunks(step).zip(x.chunks(2 * GROUP)) {
            if T == 1 {
                ask_ahead(simd, lines);
            }
            let (sides, codes) = (sides(&lines[0]), &lines[1..]);
            for (group, (codes, x)) in codes.chunks_exact(GROUP / 4).zip(x.chunks_exact(GROUP)).enumerate() {
                let mut acc = [[simd.splat(0.0); 2]; T];
                for (line, x) in codes.iter().zip(x.as_chunks::<4>().0) {
                    let word = simd.load_words(line);
                    for (at, x) in x.iter().enumerate() {
                        let value = e4m3(simd, word, at);
                        for t in 0..T {
                            acc[t][at % 2] = simd.fma(value, simd.splat(f32::from_bits(x[t])), acc[t][at % 2]);
                        }
                    }
                }
                let scale = simd.load_bf16(lanes(sides, group * LANES));
                for t in 0..T {
                    sums[t] = simd.fma(scale, simd.add(acc[t][0], acc[t][1]), sums[t]);
                }
            }
        }
        store_sums(simd, y, sums);
    }
}

/// Values of byte `at` of every word. A code without an exponent becomes an `f32` without one, so that it is exact, too.
#[inline(always)]
fn e4m3<S: Simd>(simd: S, word: S::I, at: usize) -> S::F {
    let shift = 8 * at as i32;
    let (magnitude, sign) = (simd.field(word, shift - 20, 0x7f << 20), simd.field(word, shift - 24, 1 << 31));
    simd.mul(simd.reinterpret(simd.or(magnitude, sign)), simd.splat(RAISE))
}
