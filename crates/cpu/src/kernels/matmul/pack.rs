//! Packing of a checkpoint's rows into tiles.

use super::layout::{CHUNK, Line, Planes, TILE, TileLayout, step_lines, unit};
use crate::simd::{Isa, Kernel, Simd, vectorize};
use half::bf16;
use mlx_serving_device::{DeviceError, Float, Micro, Result, WeightFormat, WeightSource, WeightSpec};
use std::ops::Range;

/// Packs tiles `tiles` of `source` into `out`, which has their length.
pub(crate) fn pack(
    isa: Isa,
    spec: &WeightSpec,
    source: &WeightSource<'_>,
    tiles: Range<usize>,
    out: &mut [u8],
) -> Result<()> {
    let layout = TileLayout::new(spec)?;
    source.validate(spec)?;
    let (len, bytes) = (out.len(), layout.weight_layout().bytes_per_block);
    let lines = bytemuck::try_cast_slice_mut::<u8, Line>(out).ok();
    let Some(lines) = lines.filter(|lines| tiles.end <= layout.tiles() && lines.len() == tiles.len() * layout.lines)
    else {
        return Err(DeviceError::Contract(format!(
            "a buffer of {len} bytes for tiles {tiles:?} of {bytes} bytes each, aligned to words, of {spec:?}"
        )));
    };
    for (tile, to) in tiles.zip(lines.chunks_exact_mut(layout.lines)) {
        let rows = source.rows(spec, tile * TILE..((tile + 1) * TILE).min(spec.rows));
        // What no row or no second feature fills is zero.
        if let [.., last] = to {
            *last = [0; TILE];
        }
        if (tile + 1) * TILE > spec.rows {
            to.fill([0; TILE]);
        }
        let mut job = Pack { spec: *spec, source: rows, to };
        match spec.format {
            WeightFormat::Dense(Float::F32) => job.dense::<4>(),
            WeightFormat::Dense(Float::F16 | Float::Bf16) => job.dense::<2>(),
            WeightFormat::Micro(micro) => job.micro(micro),
            WeightFormat::Affine { bits, scale, .. } => {
                match scale {
                    Float::F32 => job.sides::<4>(bits as usize),
                    Float::F16 | Float::Bf16 => job.sides::<2>(bits as usize),
                }
                match bits {
                    2 => job.words::<2>(),
                    3 => vectorize(isa, Cut::<3>(job)),
                    4 => job.words::<4>(),
                    5 => vectorize(isa, Cut::<5>(job)),
                    6 => vectorize(isa, Cut::<6>(job)),
                    _ => job.words::<8>(),
                }
            }
        }
    }
    Ok(())
}

/// Packing of a tile: at most 16 rows of a checkpoint.
struct Pack<'a> {
    spec: WeightSpec,
    source: WeightSource<'a>,
    to: &'a mut [Line],
}

impl Pack<'_> {
    /// Codes that are copied word for word.
    fn words<const BITS: usize>(self) {
        let groups = Groups::new(&self.spec, BITS);
        for (group, lines) in self.to.chunks_exact_mut(groups.lines).enumerate() {
            for (row, values) in self.source.values.chunks_exact(groups.row_bytes).enumerate() {
                let words = values[group * groups.bytes..][..groups.bytes].as_chunks::<4>().0;
                for (line, word) in lines.iter_mut().zip(words) {
                    line[row] = u32::from_le_bytes(*word);
                }
            }
        }
    }

    /// Scales and biases of `N` bytes each.
    fn sides<const N: usize>(&mut self, bits: usize) {
        let groups = Groups::new(&self.spec, bits);
        let row_bytes = groups.count * N;
        for (group, lines) in self.to.chunks_exact_mut(groups.lines).enumerate() {
            let sides = bytemuck::cast_slice_mut::<Line, u8>(&mut lines[groups.bytes / 4..]);
            let (scales, biases) = sides.as_chunks_mut::<N>().0.split_at_mut(TILE);
            for (to, from) in [(scales, self.source.scales), (biases, self.source.biases)] {
                for (to, row) in to.iter_mut().zip(from.chunks_exact(row_bytes)) {
                    *to = row.as_chunks::<N>().0[group];
                }
            }
        }
    }

    /// Small floats: scales as bf16, which holds all of them, and codes word for word.
    fn micro(self, micro: Micro) {
        let Self { spec, source, to } = self;
        let (row_bytes, step_bytes) = (spec.cols * micro.bits() / 8, 2 * micro.group() * micro.bits() / 8);
        for (step, lines) in to.chunks_mut(step_lines(spec.format)).enumerate() {
            let Some((sides, codes)) = lines.split_first_mut() else { continue };
            *sides = [0; TILE];
            let sides: &mut [u16; 2 * TILE] = bytemuck::cast_mut(sides);
            for (row, scales) in source.scales.chunks_exact(spec.cols / micro.group()).enumerate() {
                for (group, scale) in scales[2 * step..].iter().take(2).enumerate() {
                    sides[group * TILE + row] = bf16::from_f32(unit(micro) * micro.scale(*scale)).to_bits();
                }
            }
            for (row, values) in source.values.chunks_exact(row_bytes).enumerate() {
                for (line, word) in codes.iter_mut().zip(values[step * step_bytes..].as_chunks::<4>().0) {
                    line[row] = u32::from_le_bytes(*word);
                }
            }
        }
    }

    /// Plain values of `N` bytes each.
    fn dense<const N: usize>(self) {
        let to = bytemuck::cast_slice_mut::<Line, u8>(self.to).as_chunks_mut::<N>().0;
        for (row, values) in self.source.values.chunks_exact(self.spec.cols * N).enumerate() {
            for (to, value) in to[row..].iter_mut().step_by(TILE).zip(values.as_chunks::<N>().0) {
                *to = *value;
            }
        }
    }
}

/// The groups of a quantized tile.
struct Groups {
    /// Groups of a row.
    count: usize,
    /// Lines of a group.
    lines: usize,
    /// Bytes of a row's codes, and of a group's among them.
    row_bytes: usize,
    bytes: usize,
}

impl Groups {
    fn new(spec: &WeightSpec, bits: usize) -> Self {
        let group = match spec.format {
            WeightFormat::Affine { group, .. } => group as usize,
            WeightFormat::Micro(_) | WeightFormat::Dense(_) => spec.cols,
        };
        Self {
            count: spec.cols / group,
            lines: step_lines(spec.format),
            row_bytes: spec.cols * bits / 8,
            bytes: group * bits / 8,
        }
    }
}

/// Codes that are cut into two planes.
struct Cut<'a, const BITS: usize>(Pack<'a>);

impl<const BITS: usize> Kernel for Cut<'_, BITS> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(Pack { spec, source, to }) = self;
        let groups = Groups::new(&spec, BITS);
        for (group, lines) in to.chunks_exact_mut(groups.lines).enumerate() {
            for (i, chunk) in lines[..groups.bytes / 4].as_chunks_mut::<BITS>().0.iter_mut().enumerate() {
                let at = group * groups.bytes + i * CHUNK / 8 * BITS;
                let mut words = [[0; TILE]; BITS];
                for (row, values) in source.values.chunks_exact(groups.row_bytes).enumerate() {
                    for (line, word) in words.iter_mut().zip(values[at..].as_chunks::<4>().0) {
                        line[row] = u32::from_le_bytes(*word);
                    }
                }
                cut(simd, &words, chunk);
            }
        }
    }
}

/// Cuts the 32 codes of 16 rows into planes.
#[inline(always)]
fn cut<S: Simd, const BITS: usize>(simd: S, from: &[Line; BITS], to: &mut [Line; BITS]) {
    let Planes { low, high } = Planes::of(BITS);
    let mut out = [simd.zero(); BITS];
    for vector in 0..8 {
        for byte in 0..4 {
            let first = Planes::feature(low, vector, byte) * BITS;
            for (plane, bits, first) in [(0, low, first), (low, high, first + low)] {
                let per_word = 8 / bits;
                let place = 8 * byte + vector % per_word * bits;
                let mask = ((1 << bits) - 1) << place;
                let (word, shift) = (first / 32, (first % 32) as i32);
                let line = &mut out[plane + vector / per_word];
                *line = simd.or(*line, simd.field(simd.load_words(&from[word]), shift - place as i32, mask));
                if shift as usize + bits > 32 {
                    let rest = simd.field(simd.load_words(&from[word + 1]), shift - 32 - place as i32, mask);
                    *line = simd.or(*line, rest);
                }
            }
        }
    }
    for (to, line) in to.iter_mut().zip(out) {
        simd.store_words(to, line);
    }
}
