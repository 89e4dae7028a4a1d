//! Values into codes, as `mx.quantize` of MLX 0.32 has them on a CPU. Its Metal kernels differ where a value lies in the middle between two
//! codes of E2M1: they take the even one, and the CPU the smaller.

mod affine;
mod micro;

use crate::float::Float;
use crate::format::Format;
use micro::Codes;

#[cfg(test)]
mod tests;

/// Codes of some rows with what belongs to each group, row-major.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Packed {
    /// Codes, the first in the lowest bits.
    pub values: Vec<u8>,
    pub scales: Vec<u8>,
    /// Of affine formats only.
    pub biases: Vec<u8>,
}

/// Quantizes rows whose length is a multiple of the format's group. `None` if a value is not finite.
pub(crate) fn quantize(format: Format, rows: &[f32], float: Float) -> Option<Packed> {
    let mut to = Packed::default();
    let (_, group) = format.codes()?;
    for values in rows.chunks_exact(group) {
        if !values.iter().all(|value| value.is_finite()) {
            return None;
        }
        match format {
            Format::Dense => return None,
            Format::Affine { bits, .. } => affine::quantize(values, bits, float, &mut to),
            Format::Mxfp4 => micro::quantize(values, Codes::E2m1, float, &mut to),
            Format::Nvfp4 => micro::quantize_16(values, float, &mut to),
            Format::Mxfp8 => micro::quantize(values, Codes::E4m3, float, &mut to),
        }
    }
    Some(to)
}
