//! Weights as the checkpoint has them, cut into blocks of 16 rows, and their products in plain `f32`.

use crate::view::View;
use mlx_serving_device::{DeviceError, Result, Weight, WeightFormat, WeightLayout, WeightSource, WeightSpec};
use std::ops::Range;

/// Rows of a block.
const BLOCK: usize = 16;

/// Blocks of 16 rows: their values, then their scales, then their biases.
pub(crate) fn layout(spec: &WeightSpec) -> Result<WeightLayout> {
    spec.validate()?;
    let blocks = spec.rows.div_ceil(BLOCK);
    let (values, scales, biases) = WeightSpec { rows: BLOCK, ..*spec }.source_bytes();
    Ok(WeightLayout { rows_per_block: BLOCK, bytes_per_block: values + scales + biases, blocks })
}

/// Packs `blocks` of `source` into `out`.
pub(crate) fn pack(spec: &WeightSpec, source: &WeightSource<'_>, blocks: Range<usize>, out: &mut [u8]) -> Result<()> {
    let layout = layout(spec)?;
    source.validate(spec)?;
    if blocks.end > layout.blocks || out.len() != blocks.len() * layout.bytes_per_block {
        return Err(DeviceError::Contract(format!("blocks {blocks:?} of {layout:?} into {} bytes", out.len())));
    }
    for (block, out) in blocks.zip(out.chunks_exact_mut(layout.bytes_per_block)) {
        let rows = source.rows(spec, block * BLOCK..((block + 1) * BLOCK).min(spec.rows));
        let (values, scales, _) = WeightSpec { rows: BLOCK, ..*spec }.source_bytes();
        out.fill(0);
        out[..rows.values.len()].copy_from_slice(rows.values);
        out[values..values + rows.scales.len()].copy_from_slice(rows.scales);
        out[values + scales..values + scales + rows.biases.len()].copy_from_slice(rows.biases);
    }
    Ok(())
}

/// A packed weight in device memory.
pub(crate) struct PackedWeight {
    spec: WeightSpec,
    layout: WeightLayout,
    bytes: View<u8>,
}

impl PackedWeight {
    pub(crate) fn new(weight: &Weight) -> Result<Self> {
        let layout = layout(&weight.spec)?;
        Ok(Self { spec: weight.spec, layout, bytes: View::new(&weight.buffer, layout.bytes())? })
    }

    pub(crate) fn rows(&self) -> usize {
        self.spec.rows
    }

    /// Row `row`, dequantised.
    pub(crate) fn row(&self, row: usize, to: &mut [f32]) {
        let (values, scales, _) = WeightSpec { rows: BLOCK, ..self.spec }.source_bytes();
        let at = row / BLOCK * self.layout.bytes_per_block;
        // SAFETY: a weight; nothing writes it while ops run.
        let block = unsafe { self.bytes.get(at..at + self.layout.bytes_per_block) };
        let cut = |bytes: Range<usize>| {
            let len = bytes.len() / BLOCK;
            let start = bytes.start + row % BLOCK * len;
            &block[start..start + len]
        };
        match self.spec.format {
            WeightFormat::Dense(float) => to.copy_from_slice(&float.widen(cut(0..values))),
            WeightFormat::Affine { bits, group, scale } => {
                let packed = cut(0..values);
                let (s, b) =
                    (scale.widen(cut(values..values + scales)), scale.widen(cut(values + scales..block.len())));
                for (i, to) in to.iter_mut().enumerate() {
                    let q = code(packed, i, bits as usize);
                    *to = s[i / group as usize] * q as f32 + b[i / group as usize];
                }
            }
        }
    }

    /// to[r][i] = row `16 · tile + i` of the weight times row r of `x`.
    pub(crate) fn multiply(&self, tile: usize, x: &[f32], cols: usize, to: &mut [f32]) {
        let mut row = vec![0.0; cols];
        for i in 0..BLOCK.min(self.spec.rows - tile * BLOCK) {
            self.row(tile * BLOCK + i, &mut row);
            for (x, to) in x.chunks_exact(cols).zip(to.chunks_exact_mut(BLOCK)) {
                to[i] = x.iter().zip(&row).map(|(x, w)| x * w).sum();
            }
        }
    }
}

/// Code `i` of a little-endian bit stream.
fn code(packed: &[u8], i: usize, bits: usize) -> u32 {
    let (byte, shift) = (i * bits / 8, i * bits % 8);
    let word = u32::from(packed[byte]) | packed.get(byte + 1).map_or(0, |&b| u32::from(b) << 8);
    (word >> shift) & ((1 << bits) - 1)
}
