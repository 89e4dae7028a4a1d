//! Layout of weights in device memory. Blocks of four rows; in a block, for each chunk of 32 columns, the words of each row (MLX's
//! little-endian stream as it is: 32 codes of b bits are b words; dense columns are padded to whole chunks with zeros), then for
//! each group of columns the four rows' scale and bias: one word a row where they are 16 bits wide (scale below bias), otherwise four
//! scales and four biases. Small floats have a word a row for every two groups: the first one's scale as bf16 below the second's, those
//! of 4 bits halved. So a lane loads a chunk of four rows in 16-byte pieces, and neighboring lanes load neighboring chunks.

use crate::variant::{Bits, Code, Small};
use mlx_serving_device::{DeviceError, Float, Micro, Result, WeightFormat, WeightLayout, WeightSource, WeightSpec};
use std::ops::Range;

/// Rows of a block.
pub(crate) const ROWS: usize = 4;
/// Columns of a chunk: what a lane takes at a time.
pub(crate) const CHUNK: usize = 32;

/// The layout of one weight, in the terms of the kernels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed {
    /// Words of a chunk of one row: the bits of a weight.
    pub(crate) bits: Bits,
    /// Chunks of a row.
    pub(crate) chunks: u32,
    /// Words of a block.
    pub(crate) block_words: u32,
    /// log2 of the chunks that share a scale; of small floats, of the eights of columns that do.
    pub(crate) group_shift: u32,
    /// Float type of scales, or of dense values: 0 for f32, 1 for f16, 2 for bf16.
    pub(crate) kind: u32,
}

impl Packed {
    pub(crate) fn new(spec: &WeightSpec) -> Result<Self> {
        spec.validate()?;
        let chunks = spec.cols.div_ceil(CHUNK) as u32;
        let (bits, group, side, kind) = match spec.format {
            WeightFormat::Affine { bits, group, scale } => {
                (Bits::Code(code(bits)?), u32::from(group), side(scale), kind(scale))
            }
            WeightFormat::Micro(micro) => {
                let groups = (spec.cols / micro.group()) as u32;
                let bits = Bits::Micro(if micro.bits() == 4 { Small::F4 } else { Small::F8 });
                let block_words = ROWS as u32 * (chunks * bits.count() + groups.div_ceil(2));
                let group_shift = (micro.group() as u32 / 8).ilog2();
                return Ok(Self { bits, chunks, block_words, group_shift, kind: kind(Float::Bf16) });
            }
            WeightFormat::Dense(Float::F32) => (Bits::B32, CHUNK as u32, 0, kind(Float::F32)),
            WeightFormat::Dense(float) => (Bits::B16, CHUNK as u32, 0, kind(float)),
        };
        let groups = chunks * CHUNK as u32 / group;
        let block_words = ROWS as u32 * (chunks * bits.count() + groups * side);
        Ok(Self { bits, chunks, block_words, group_shift: (group / CHUNK as u32).ilog2(), kind })
    }
}

/// Factor of small floats' scales: kernels take codes of 4 bits doubled, which makes them integers.
fn unit(micro: Micro) -> f32 {
    if micro.bits() == 4 { 0.5 } else { 1.0 }
}

fn code(bits: u8) -> Result<Code> {
    Ok(match bits {
        2 => Code::B2,
        3 => Code::B3,
        4 => Code::B4,
        5 => Code::B5,
        6 => Code::B6,
        8 => Code::B8,
        _ => return Err(DeviceError::Unsupported(format!("weights of {bits} bits a code; 2 to 6 and 8 are"))),
    })
}

/// Words of a scale with its bias.
fn side(float: Float) -> u32 {
    if float == Float::F32 { 2 } else { 1 }
}

fn kind(float: Float) -> u32 {
    match float {
        Float::F32 => 0,
        Float::F16 => 1,
        Float::Bf16 => 2,
    }
}

pub(crate) fn weight_layout(spec: &WeightSpec) -> Result<WeightLayout> {
    let packed = Packed::new(spec)?;
    Ok(WeightLayout {
        rows_per_block: ROWS,
        bytes_per_block: 4 * packed.block_words as usize,
        blocks: spec.rows.div_ceil(ROWS),
    })
}

/// Packs `blocks` of the matrix into `out`.
pub(crate) fn pack(spec: &WeightSpec, source: &WeightSource<'_>, blocks: Range<usize>, out: &mut [u8]) -> Result<()> {
    let layout = weight_layout(spec)?;
    source.validate(spec)?;
    if blocks.end > layout.blocks || out.len() != blocks.len() * layout.bytes_per_block {
        return Err(DeviceError::Contract(format!("blocks {blocks:?} of {layout:?} into {} bytes", out.len())));
    }
    out.fill(0);
    for (block, out) in blocks.zip(out.chunks_exact_mut(layout.bytes_per_block)) {
        for r in 0..ROWS.min(spec.rows - block * ROWS) {
            pack_row(spec, source, block * ROWS + r, r, out);
        }
    }
    Ok(())
}

/// Packs one row as row `r` of its block.
fn pack_row(spec: &WeightSpec, source: &WeightSource<'_>, row: usize, r: usize, out: &mut [u8]) {
    let bytes_of_row = |bytes: &'_ [u8]| {
        let len = bytes.len() / spec.rows;
        row * len..(row + 1) * len
    };
    let values = &source.values[bytes_of_row(source.values)];
    let chunk = match spec.format {
        WeightFormat::Affine { bits, .. } => 4 * usize::from(bits),
        WeightFormat::Micro(micro) => 4 * micro.bits(),
        WeightFormat::Dense(float) => CHUNK * float.size(),
    };
    for (values, place) in values.chunks(chunk).zip(out.chunks_exact_mut(ROWS * chunk)) {
        place[r * chunk..r * chunk + values.len()].copy_from_slice(values);
    }
    if let WeightFormat::Micro(micro) = spec.format {
        let sides = &mut out[ROWS * chunk * spec.cols.div_ceil(CHUNK)..];
        for (group, scale) in source.scales[bytes_of_row(source.scales)].iter().enumerate() {
            // Exact: bf16 has the exponents of the one kind of scales and the mantissa of the other.
            let scale = (unit(micro) * micro.scale(*scale)).to_le_bytes();
            let at = (group / 2 * ROWS + r) * 4 + group % 2 * 2;
            sides[at..at + 2].copy_from_slice(&scale[2..]);
        }
    }
    if let WeightFormat::Affine { scale, .. } = spec.format {
        let size = scale.size();
        let (scales, biases) =
            (&source.scales[bytes_of_row(source.scales)], &source.biases[bytes_of_row(source.biases)]);
        let sides = &mut out[ROWS * chunk * spec.cols.div_ceil(CHUNK)..];
        // Scale next to bias where both fit a word; four scales, then four biases, where they do not.
        let (scale_at, bias_at) = if size == 2 { (4 * r, 4 * r + 2) } else { (4 * r, 16 + 4 * r) };
        let pairs = scales.chunks_exact(size).zip(biases.chunks_exact(size));
        for ((s, b), place) in pairs.zip(sides.chunks_exact_mut(2 * ROWS * size)) {
            place[scale_at..scale_at + size].copy_from_slice(s);
            place[bias_at..bias_at + size].copy_from_slice(b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_serving_device::oracle::dequantize;
    use proptest::prelude::*;

    fn bits_at(bytes: &[u8], first: usize, count: usize) -> u32 {
        (0..count).map(|i| u32::from(bytes[(first + i) / 8] >> ((first + i) % 8) & 1) << i).sum()
    }

    fn float(float: Float, bits: u32) -> f32 {
        float.widen(&bits.to_le_bytes()[..float.size()])[0]
    }

    /// A value of a packed weight, found bit by bit as this file's docs say.
    fn value(spec: &WeightSpec, packed: &[u8], row: usize, col: usize) -> f32 {
        let p = Packed::new(spec).unwrap();
        let (bits, r) = (p.bits.count() as usize, row % ROWS);
        let block = &packed[row / ROWS * p.block_words as usize * 4..];
        let code = bits_at(block, 32 * bits * (col / CHUNK * ROWS + r) + col % CHUNK * bits, bits);
        let sides = &block[ROWS * 4 * bits * p.chunks as usize..];
        match spec.format {
            WeightFormat::Dense(kind) => float(kind, code),
            WeightFormat::Micro(micro) => {
                let group = col / micro.group();
                let scale = bits_at(sides, (group / 2 * ROWS + r) * 32 + group % 2 * 16, 16);
                float(Float::Bf16, scale) / unit(micro) * micro.value(code as u8)
            }
            WeightFormat::Affine { group, scale, .. } => {
                let bits = 8 * scale.size();
                let first = col / usize::from(group) * ROWS * 2 * bits;
                let (s, b) = if bits == 16 { (2 * r, 2 * r + 1) } else { (r, ROWS + r) };
                let side = |i| float(scale, bits_at(sides, first + i * bits, bits));
                side(s) * code as f32 + side(b)
            }
        }
    }

    fn formats() -> impl Strategy<Value = WeightFormat> {
        let floats = || prop::sample::select(vec![Float::F32, Float::F16, Float::Bf16]);
        let bits = prop::sample::select(vec![2u8, 3, 4, 5, 6, 8]);
        let affine = (bits, prop::sample::select(vec![32u16, 64, 128]), floats())
            .prop_map(|(bits, group, scale)| WeightFormat::Affine { bits, group, scale });
        let micro = prop::sample::select(Micro::ALL.to_vec()).prop_map(WeightFormat::Micro);
        prop_oneof![1 => floats().prop_map(WeightFormat::Dense), 2 => affine, 1 => micro]
    }

    proptest! {
        #[test]
        fn every_value_is_where_the_layout_says(
            format in formats(), rows in 1usize..11, width in 1usize..4, seed in any::<u64>()
        ) {
            let cols = match format {
                WeightFormat::Dense(_) => width * 41,
                WeightFormat::Micro(_) => width * 32,
                WeightFormat::Affine { group, .. } => width * usize::from(group),
            };
            let spec = WeightSpec { rows, cols, format };
            let (values, scales, biases) = spec.source_bytes();
            // Bytes without the patterns of NaN, so that values can be compared.
            let byte = |i: usize| (seed.rotate_left(i as u32 % 61).wrapping_mul(i as u64 | 1) >> 13) as u8 & 0x3f;
            let bytes = |len: usize, salt: usize| (0..len).map(|i| byte(i + salt)).collect::<Vec<u8>>();
            let (values, scales, biases) = (bytes(values, 1), bytes(scales, 7), bytes(biases, 11));
            let source = WeightSource { values: &values, scales: &scales, biases: &biases };
            let layout = weight_layout(&spec).unwrap();
            let mut packed = vec![0xff; layout.bytes()];
            pack(&spec, &source, 0..layout.blocks, &mut packed).unwrap();
            let want = dequantize(&spec, &source).unwrap();
            for row in 0..rows {
                for col in 0..cols {
                    prop_assert_eq!(value(&spec, &packed, row, col), want.row(row)[col], "{:?} {} {}", spec, row, col);
                }
            }
        }
    }
}
