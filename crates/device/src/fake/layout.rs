//! The device's storage of weights and KV blocks: a weight's rows one after the other, each as values, scales and biases of the
//! source, in blocks of four with padding; a KV block as the oracle has it.

use super::memory::load;
use crate::oracle::{Matrix, dequantize};
use crate::{DeviceError, Result, Weight, WeightLayout, WeightSource, WeightSpec};
use std::ops::Range;

/// Rows of a block: few, but more than one, so that padding is met.
const BLOCK: usize = 4;

/// Bytes of one row: values, scales, biases.
fn row_bytes(spec: &WeightSpec) -> (usize, usize, usize) {
    WeightSpec { rows: 1, ..*spec }.source_bytes()
}

pub(super) fn weight_layout(spec: &WeightSpec) -> Result<WeightLayout> {
    spec.validate()?;
    let (values, scales, biases) = row_bytes(spec);
    Ok(WeightLayout {
        rows_per_block: BLOCK,
        bytes_per_block: BLOCK * (values + scales + biases),
        blocks: spec.rows.div_ceil(BLOCK),
    })
}

pub(super) fn pack(spec: &WeightSpec, source: &WeightSource<'_>, blocks: Range<usize>, out: &mut [u8]) -> Result<()> {
    let layout = weight_layout(spec)?;
    source.validate(spec)?;
    if blocks.end > layout.blocks || out.len() != blocks.len() * layout.bytes_per_block {
        return Err(DeviceError::Contract(format!("blocks {blocks:?} of {layout:?} into {} bytes", out.len())));
    }
    out.fill(0);
    let rows = blocks.start * BLOCK..(blocks.end * BLOCK).min(spec.rows);
    for (row, out) in rows.zip(out.chunks_exact_mut(layout.bytes_per_block / BLOCK)) {
        let row = source.rows(spec, row..row + 1);
        out.copy_from_slice(&[row.values, row.scales, row.biases].concat());
    }
    Ok(())
}

/// A packed weight, widened.
pub(super) fn unpack(weight: &Weight) -> Result<Matrix> {
    let spec = &weight.spec;
    let layout = weight_layout(spec)?;
    let bytes: Vec<u8> = load(&weight.buffer, layout.bytes())?;
    let (value_bytes, scale_bytes, bias_bytes) = row_bytes(spec);
    let (mut values, mut scales, mut biases) = (Vec::new(), Vec::new(), Vec::new());
    for row in bytes.chunks_exact(value_bytes + scale_bytes + bias_bytes).take(spec.rows) {
        let (of_values, sides) = row.split_at(value_bytes);
        let (of_scales, of_biases) = sides.split_at(scale_bytes);
        values.extend_from_slice(of_values);
        scales.extend_from_slice(of_scales);
        biases.extend_from_slice(of_biases);
    }
    dequantize(spec, &WeightSource { values: &values, scales: &scales, biases: &biases })
}
