//! Tokens made ready for a matrix: normed, and in the order and number format that its tiles want.
//!
//! A pass of `width` tokens lies step by step, for each word of a step the tokens side by side:
//!
//! - int8: blocks of at most 64 features, which are in one group of the weight; a word holds the four that one vector of codes meets. Then the block's scale d and
//!   d·Σx̂, `f32`. With x = d·x̂ + e the error of Σ w·x is Σ w·e, because the biases meet the sum of the rounded values.
//! - `f32` for codes: blocks of a group; a word a feature, in the order of the codes, times 256^-byte because codes are read in place;
//!   then Σx.
//! - `f32` for plain values: a word a feature.

use super::layout::{CHUNK, Planes, step};
use crate::kernels::norm::norm_factor;
use crate::simd::{Kernel, LANES, Simd, lanes, lanes_mut};
use mlx_serving_device::{Arithmetic, Micro, WeightFormat};
use std::ops::Range;

/// Features that share a scale at most: a bound on the rounding, not chosen for speed.
const BLOCK: usize = 64;
/// Longest step: the largest group of the formats, and a dense weight's step.
const LONGEST: usize = 128;
/// Blocks of smaller numbers count as zeros: their scale would be no normal number.
const TINY: f32 = 1e-30;

/// Format in which a matrix takes its tokens, `step` features at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputFormat {
    /// Rounded to 8 bits in blocks of `block`, for codes whose low plane has `low` bits.
    Int8 { low: usize, block: usize, step: usize },
    /// `f32` for such codes.
    Codes { low: usize, block: usize, step: usize },
    /// `f32` for plain values, and for codes in the order of the features.
    Plain { step: usize },
}

impl InputFormat {
    pub(crate) fn of(format: WeightFormat, arithmetic: Arithmetic) -> Self {
        let step = step(format);
        let (low, group) = match format {
            WeightFormat::Dense(_) | WeightFormat::Micro(Micro::Mxfp8) => return Self::Plain { step },
            WeightFormat::Micro(micro) => (micro.bits(), micro.group()),
            WeightFormat::Affine { bits, group, .. } => (Planes::of(bits as usize).low, group as usize),
        };
        match arithmetic {
            Arithmetic::Fast => Self::Int8 { low, block: group.min(BLOCK), step },
            Arithmetic::Exact => Self::Codes { low, block: group, step },
        }
    }

    /// Features of a step.
    pub(crate) fn step(self) -> usize {
        match self {
            Self::Int8 { step, .. } | Self::Codes { step, .. } | Self::Plain { step } => step,
        }
    }

    /// Words of a whole step for one token.
    pub(crate) fn step_words(self) -> usize {
        self.words(self.step())
    }

    /// Words of a token of `cols` features.
    pub(crate) fn words(self, cols: usize) -> usize {
        match self {
            Self::Int8 { block, .. } => cols / block * (block / 4 + 2),
            Self::Codes { block, .. } => cols / block * (block + 1),
            Self::Plain { .. } => cols,
        }
    }
}

/// RMS norm of a token.
#[derive(Clone, Copy)]
pub(crate) struct RowNorm<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) eps: f32,
}

/// Makes some steps of one token ready.
pub(crate) struct Prepare<'a> {
    pub(crate) format: InputFormat,
    /// The whole token.
    pub(crate) row: &'a [f32],
    pub(crate) norm: Option<RowNorm<'a>>,
    pub(crate) steps: Range<usize>,
    /// Index among the `width` tokens of the pass.
    pub(crate) token: usize,
    pub(crate) width: usize,
    /// Steps of the pass to prepare.
    pub(crate) to: &'a mut [u32],
}

impl Kernel for Prepare<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { format, row, norm, steps, token, width, to } = self;
        let step = format.step();
        // No closure: it would be compiled without the instruction set.
        let factor = if let Some(norm) = norm { norm_factor(simd, row, norm.eps) } else { 1.0 };
        let range = steps.start * step..(steps.end * step).min(row.len());
        let mut buffer = [0.0; LONGEST];
        let steps = row[range.clone()].chunks(step).zip(to.chunks_mut(format.step_words() * width));
        for (i, (x, to)) in steps.enumerate() {
            let x = match norm {
                None => x,
                Some(RowNorm { weight, .. }) => {
                    let weight = &weight[range.start + i * step..][..x.len()];
                    for ((to, x), w) in buffer.iter_mut().zip(x).zip(weight) {
                        *to = x * factor * w;
                    }
                    &buffer[..x.len()]
                }
            };
            let to = Column { to, token, width };
            match format {
                InputFormat::Int8 { low: 2, block, .. } => int8::<S, 2>(simd, x, block, to),
                InputFormat::Int8 { low: 4, block, .. } => int8::<S, 4>(simd, x, block, to),
                InputFormat::Int8 { block, .. } => int8::<S, 8>(simd, x, block, to),
                InputFormat::Codes { low, block, .. } => codes(x, low, block, to),
                InputFormat::Plain { .. } => to.fill(x.iter().copied()),
            }
        }
    }
}

/// Words of one token among those of a pass.
struct Column<'a> {
    to: &'a mut [u32],
    token: usize,
    width: usize,
}

impl Column<'_> {
    #[inline(always)]
    fn set(&mut self, at: usize, word: u32) {
        self.to[at * self.width + self.token] = word;
    }

    fn fill(mut self, values: impl Iterator<Item = f32>) {
        values.enumerate().for_each(|(at, x)| self.set(at, x.to_bits()));
    }
}

/// Rounds the blocks of a step to 8 bits.
#[inline(always)]
fn int8<S: Simd, const LOW: usize>(simd: S, x: &[f32], block: usize, mut to: Column<'_>) {
    for (i, x) in x.chunks_exact(block).enumerate() {
        let at = i * (block / 4 + 2);
        let mut rounded = [0u32; BLOCK];
        let scale = round(simd, x, &mut rounded);
        let sum: i32 = rounded.iter().map(|x| x.cast_signed()).sum();
        for (chunk, x) in rounded.as_chunks::<CHUNK>().0[..block.div_ceil(CHUNK)].iter().enumerate() {
            for vector in 0..block.min(CHUNK) / 4 {
                let byte = |byte: usize| (x[Planes::feature(LOW, vector, byte)] & 0xff) << (8 * byte);
                to.set(at + chunk * 8 + vector, byte(0) | byte(1) | byte(2) | byte(3));
            }
        }
        to.set(at + block / 4, scale.to_bits());
        to.set(at + block / 4 + 1, (scale * sum as f32).to_bits());
    }
}

/// Rounds a block to multiples of the scale that is returned: NaN where a value is not finite.
#[inline(always)]
fn round<S: Simd>(simd: S, x: &[f32], to: &mut [u32; BLOCK]) -> f32 {
    let zero = simd.splat(0.0);
    let (mut highest, mut poison) = (zero, zero);
    for x in x.as_chunks::<LANES>().0 {
        let x = simd.load(x);
        highest = simd.max(highest, simd.max(x, simd.sub(zero, x)));
        // Zero times anything finite is zero.
        poison = simd.fma(x, zero, poison);
    }
    let highest = simd.top(highest);
    if simd.sum(poison) != 0.0 {
        return f32::NAN;
    }
    if highest < TINY {
        return 0.0;
    }
    let factor = simd.splat(127.0 / highest);
    for at in (0..x.len()).step_by(LANES) {
        simd.store_words(lanes_mut(to, at), simd.round(simd.mul(simd.load(lanes(x, at)), factor)));
    }
    highest / 127.0
}

/// The blocks of a step as tiles of codes meet them, each with its sum.
#[inline(always)]
fn codes(x: &[f32], low: usize, block: usize, mut to: Column<'_>) {
    const IN_PLACE: [f32; 4] = [1.0, 1.0 / 256.0, 1.0 / 65536.0, 1.0 / 16_777_216.0];
    for (i, x) in x.chunks_exact(block).enumerate() {
        let first = i * (block + 1);
        for (chunk, x) in x.chunks(CHUNK).enumerate() {
            for vector in 0..x.len() / 4 {
                for (byte, factor) in IN_PLACE.iter().enumerate() {
                    let value = x[Planes::feature(low, vector, byte)] * factor;
                    to.set(first + chunk * CHUNK + vector * 4 + byte, value.to_bits());
                }
            }
        }
        let mut sums = [0.0; LANES];
        for x in x.as_chunks::<LANES>().0 {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
        }
        to.set(first + block, sums.iter().sum::<f32>().to_bits());
    }
}
