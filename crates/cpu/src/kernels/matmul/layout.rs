//! Tiles of 16 rows. Vector lanes are rows, so nothing is ever summed across lanes.
//!
//! Quantized, for each group of features: for each 32 of them `bits` lines, then the scales and biases of the group. A line is 16
//! words, one a row. 2, 4 and 8 bits are the checkpoint's words; 3, 5 and 6 bits are cut into a plane of 2 or 4 low bits in the
//! same order, and a plane of 1 or 2 high bits in an order that one shift brings over it.
//!
//! Small floats: for each two groups a line with their scales as bf16, those of codes of 4 bits halved; then the lines of their codes,
//! which are the checkpoint's words. The last group may be alone.
//!
//! Dense: for each feature the values of the 16 rows, two features a line where values have 16 bits.

use crate::simd::Simd;
use half::{bf16, f16};
use mlx_serving_device::{DeviceError, Float, Micro, Result, WeightFormat, WeightLayout, WeightSpec};
use std::ops::Range;

/// Rows of a tile: the lanes of a vector.
pub(crate) const TILE: usize = 16;
/// Features that a run of `bits` lines holds.
pub(super) const CHUNK: usize = 32;
/// Features of a dense weight that are summed before they are added to what came before. Part of what a row's bits are. Not measured.
pub(super) const DENSE_STEP: usize = 128;

/// A cache line of a tile: a word of each row.
pub(crate) type Line = [u32; TILE];

/// Division of codes of `bits` bits into planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planes {
    /// Bits of the low plane: 2, 4 or 8.
    pub(super) low: usize,
    /// Bits of the high plane: 0, 1 or 2.
    pub(super) high: usize,
}

impl Planes {
    pub(super) const fn of(bits: usize) -> Self {
        let low = if bits < 4 {
            2
        } else if bits < 8 {
            4
        } else {
            8
        };
        Self { low, high: bits - low }
    }

    /// The feature, of 32, whose code is byte `byte` of vector `vector`.
    pub(super) const fn feature(low: usize, vector: usize, byte: usize) -> usize {
        let stride = 8 / low;
        vector / stride * 4 * stride + vector % stride + stride * byte
    }
}

/// Vector `vector` of 8 of a chunk: four codes a row, a byte each.
#[inline(always)]
pub(super) fn codes<S: Simd, const BITS: usize>(simd: S, chunk: &[Line; BITS], vector: usize) -> S::I {
    let Planes { low, high } = const { Planes::of(BITS) };
    let stride = 8 / low;
    let word = simd.load_words(&chunk[vector / stride]);
    if low == 8 {
        return word;
    }
    let mask = if low == 4 { 0x0f0f_0f0f } else { 0x0303_0303 };
    let base = simd.field(word, (vector % stride * low) as i32, mask);
    if high == 0 {
        return base;
    }
    let per_word = 8 / high;
    let word = simd.load_words(&chunk[low + vector / per_word]);
    let shift = (vector % per_word * high) as i32 - low as i32;
    let mask = if high == 1 { 0x0101_0101 } else { 0x0303_0303 };
    simd.or(base, simd.field(word, shift, mask << low))
}

/// Sizes of a weight's tiles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileLayout {
    pub(crate) spec: WeightSpec,
    /// Lines of a tile.
    pub(crate) lines: usize,
}

impl TileLayout {
    pub(crate) fn new(spec: &WeightSpec) -> Result<Self> {
        spec.validate()?;
        let lines = match spec.format {
            WeightFormat::Affine { group, .. } => spec.cols / group as usize * step_lines(spec.format),
            WeightFormat::Micro(micro) => spec.cols.div_ceil(2 * micro.group()) + spec.cols / CHUNK * micro.bits(),
            WeightFormat::Dense(float) => spec.cols.div_ceil(4 / float.size()),
        };
        let bytes = lines.checked_mul(size_of::<Line>()).and_then(|b| b.checked_mul(spec.rows.div_ceil(TILE)));
        match bytes {
            Some(_) => Ok(Self { spec: *spec, lines }),
            None => Err(DeviceError::Unsupported(format!("weight {spec:?}, which exceeds the address space"))),
        }
    }

    /// Number of tiles.
    pub(crate) fn tiles(&self) -> usize {
        self.spec.rows.div_ceil(TILE)
    }

    pub(crate) fn weight_layout(&self) -> WeightLayout {
        WeightLayout { rows_per_block: TILE, bytes_per_block: self.lines * size_of::<Line>(), blocks: self.tiles() }
    }

    /// Features of a step.
    pub(crate) fn step(&self) -> usize {
        step(self.spec.format)
    }

    /// The lines, within a tile, of some steps.
    pub(crate) fn step_range(&self, steps: Range<usize>) -> Range<usize> {
        let step = step_lines(self.spec.format);
        steps.start * step..(steps.end * step).min(self.lines)
    }

    /// Row `row` of `tile`, dequantized to `to`.
    pub(crate) fn row(&self, tile: &[Line], row: usize, to: &mut [f32]) {
        match self.spec.format {
            WeightFormat::Dense(float) => {
                let per_line = 4 / float.size();
                for (to, line) in to.chunks_mut(per_line).zip(tile) {
                    to.iter_mut().enumerate().for_each(|(at, to)| *to = value(line, float, at * TILE + row));
                }
            }
            WeightFormat::Micro(micro) => {
                let (step, words_per_group) = (step_lines(self.spec.format), micro.group() * micro.bits() / 32);
                for (i, to) in to.chunks_exact_mut(micro.group()).enumerate() {
                    let lines = &tile[i / 2 * step..];
                    let scale = value(&lines[0], Float::Bf16, i % 2 * TILE + row) / unit(micro);
                    for (to, line) in to.chunks_exact_mut(32 / micro.bits()).zip(&lines[1 + i % 2 * words_per_group..])
                    {
                        let code = |at: usize| (line[row] >> (at * micro.bits()) & ((1 << micro.bits()) - 1)) as u8;
                        to.iter_mut().enumerate().for_each(|(at, to)| *to = scale * micro.value(code(at)));
                    }
                }
            }
            WeightFormat::Affine { bits, group, scale } => {
                let (bits, group) = (bits as usize, group as usize);
                let code_lines = group / CHUNK * bits;
                for (to, lines) in to.chunks_exact_mut(group).zip(tile.chunks_exact(step_lines(self.spec.format))) {
                    let (codes, sides) = lines.split_at(code_lines);
                    let (s, b) = match scale {
                        Float::F32 => (value(&sides[0], scale, row), value(&sides[1], scale, row)),
                        _ => (value(&sides[0], scale, row), value(&sides[0], scale, TILE + row)),
                    };
                    for (to, chunk) in to.chunks_exact_mut(CHUNK).zip(codes.chunks_exact(bits)) {
                        row_codes(chunk, bits, row, |k, q| to[k] = s * q as f32 + b);
                    }
                }
            }
        }
    }
}

/// Features of a step: a group, two of small floats, or [`DENSE_STEP`].
pub(super) fn step(format: WeightFormat) -> usize {
    match format {
        WeightFormat::Affine { group, .. } => group as usize,
        WeightFormat::Micro(micro) => 2 * micro.group(),
        WeightFormat::Dense(_) => DENSE_STEP,
    }
}

/// Factor of the scales in a tile: kernels take codes of 4 bits doubled, which makes them integers.
pub(super) fn unit(micro: Micro) -> f32 {
    if micro.bits() == 4 { 0.5 } else { 1.0 }
}

/// Lines of a whole step.
pub(super) fn step_lines(format: WeightFormat) -> usize {
    match format {
        WeightFormat::Affine { bits, group, scale } => group as usize / CHUNK * bits as usize + scale.size() / 2,
        WeightFormat::Micro(micro) => 1 + 2 * micro.group() * micro.bits() / 32,
        WeightFormat::Dense(float) => DENSE_STEP * float.size() / 4,
    }
}

/// Value `at` of a line.
fn value(line: &Line, float: Float, at: usize) -> f32 {
    let halves: &[u16; 2 * TILE] = bytemuck::cast_ref(line);
    match float {
        Float::F32 => f32::from_bits(line[at]),
        Float::F16 => f16::from_bits(halves[at]).to_f32(),
        Float::Bf16 => bf16::from_bits(halves[at]).to_f32(),
    }
}

/// Gives `each` every (feature, code) of row `row` of a chunk.
fn row_codes(chunk: &[Line], bits: usize, row: usize, mut each: impl FnMut(usize, u32)) {
    let Planes { low, high } = Planes::of(bits);
    for vector in 0..8 {
        for byte in 0..4 {
            let field = |first: usize, bits: usize| {
                let per_word = 8 / bits;
                let word = chunk[first + vector / per_word][row];
                word >> (8 * byte + vector % per_word * bits) & ((1 << bits) - 1)
            };
            let high = if high == 0 { 0 } else { field(low, high) };
            each(Planes::feature(low, vector, byte), field(0, low) | high << low);
        }
    }
}
