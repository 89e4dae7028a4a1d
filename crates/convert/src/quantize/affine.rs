use super::Packed;
use crate::float::Float;

/// Scales are no smaller.
const LEAST: f32 = 1e-7;

/// Quantizes one group: w = scale · q + bias, with the value that is farthest from 0 exact, and 0 if its code is not 0.
pub(super) fn quantize(values: &[f32], bits: u8, float: Float, to: &mut Packed) {
    let most = ((1u32 << bits) - 1) as f32;
    let (scale, bias) = parameters(values, most);
    float.push(scale, &mut to.scales);
    float.push(bias, &mut to.biases);
    let (mut word, mut filled) = (0u32, 0);
    for value in values {
        let code = ((value - bias) / scale).round_ties_even().clamp(0.0, most);
        word |= (code as u32) << filled;
        filled += bits;
        while filled >= 8 {
            to.values.push(word as u8);
            (word, filled) = (word >> 8, filled - 8);
        }
    }
}

fn parameters(values: &[f32], most: f32) -> (f32, f32) {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for &value in values {
        (low, high) = (low.min(value), high.max(value));
    }
    let scale = ((high - low) / most).max(LEAST);
    let (scale, edge) = if low.abs() > high.abs() { (scale, low) } else { (-scale, high) };
    match (edge / scale).round_ties_even() {
        0.0 => (scale, 0.0),
        code => (edge / code, edge),
    }
}
