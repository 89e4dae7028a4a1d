//! How weights lie in device memory. Blocks of four rows; in a block, for each chunk of 32 columns, the words of each row (MLX's
//! little-endian stream as it is: 32 codes of b bits are b words; dense columns are padded to whole chunks with zeros), then for
//! each group of columns the four rows' scale and bias: one word a row where they are 16 bits wide (scale below bias), otherwise four
//! scales and four biases. So a lane loads a chunk of four rows in 16-byte pieces, and neighbouring lanes load neighbouring chunks.

use mlx_serving_device::{DeviceError, Float, Result, WeightFormat, WeightLayout, WeightSource, WeightSpec};
use std::ops::Range;

/// Rows of a block.
pub(crate) const ROWS: usize = 4;
/// Columns of a chunk: what a lane takes at a time.
pub(crate) const CHUNK: usize = 32;

/// The layout of one weight, in the terms of the kernels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed {
    /// Words of a chunk of one row: the bits of a weight.
    pub(crate) bits: u32,
    /// Chunks of a row.
    pub(crate) chunks: u32,
    /// Words of a block.
    pub(crate) block_words: u32,
    /// log2 of the chunks that share a scale.
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
                (u32::from(bits), u32::from(group), side(scale), kind(scale))
            }
            WeightFormat::Dense(float) => (8 * float.size() as u32, CHUNK as u32, 0, kind(float)),
        };
        let groups = chunks * CHUNK as u32 / group;
        let block_words = ROWS as u32 * (chunks * bits + groups * side);
        Ok(Self { bits, chunks, block_words, group_shift: (group / CHUNK as u32).ilog2(), kind })
    }
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
        WeightFormat::Dense(float) => CHUNK * float.size(),
    };
    for (values, place) in values.chunks(chunk).zip(out.chunks_exact_mut(ROWS * chunk)) {
        place[r * chunk..r * chunk + values.len()].copy_from_slice(values);
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
