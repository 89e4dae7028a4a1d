use crate::{Result, WeightFormat, WeightSource, WeightSpec};

/// A weight matrix with its values widened.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// `[rows][cols]`.
    pub values: Vec<f32>,
}

impl Matrix {
    /// Values of a row: `[cols]`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.cols..(row + 1) * self.cols]
    }
}

/// Widens a weight: dense values as they are, affine ones as s·q + b and small floats as s·v, with one s and one b for every group of
/// a row.
///
/// Fails on a spec that no backend handles, on a source of other lengths than the spec's, and on small floats that are not numbers.
pub fn dequantize(spec: &WeightSpec, source: &WeightSource<'_>) -> Result<Matrix> {
    spec.validate()?;
    source.validate(spec)?;
    let values = match spec.format {
        WeightFormat::Dense(float) => float.widen(source.values),
        WeightFormat::Affine { bits, group, scale } => {
            let (scales, biases) = (scale.widen(source.scales), scale.widen(source.biases));
            let affine = |i: usize| {
                let g = i / usize::from(group);
                scales[g] * code(source.values, i, usize::from(bits)) as f32 + biases[g]
            };
            // Columns are whole groups and rows whole bytes, so that neither counter starts again with a row.
            (0..spec.rows * spec.cols).map(affine).collect()
        }
        WeightFormat::Micro(micro) => {
            let value = |i| micro.value(code(source.values, i, micro.bits()) as u8);
            (0..spec.rows * spec.cols).map(|i| micro.scale(source.scales[i / micro.group()]) * value(i)).collect()
        }
    };
    Ok(Matrix { rows: spec.rows, cols: spec.cols, values })
}

/// Code `i` of a little-endian stream of `bits`-bit codes.
fn code(packed: &[u8], i: usize, bits: usize) -> u32 {
    let (byte, shift) = (i * bits / 8, i * bits % 8);
    let next = packed.get(byte + 1).copied().unwrap_or(0);
    (u32::from(u16::from_le_bytes([packed[byte], next])) >> shift) & ((1 << bits) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Float;
    use proptest::prelude::*;

    /// Packs codes as MLX does: into u32 words where `bits` divides 32, over bytes otherwise; both are one bit stream.
    fn pack(codes: &[u32], bits: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; codes.len() * bits / 8];
        for (i, code) in codes.iter().enumerate() {
            for bit in (0..bits).filter(|bit| code >> bit & 1 == 1) {
                bytes[(i * bits + bit) / 8] |= 1 << ((i * bits + bit) % 8);
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn codes_come_back(
            bits in prop::sample::select(vec![2usize, 3, 4, 5, 6, 8]),
            words in prop::collection::vec(any::<u32>(), 32)
        ) {
            let codes: Vec<u32> = words.iter().map(|word| word & ((1 << bits) - 1)).collect();
            let packed = pack(&codes, bits);
            prop_assert_eq!((0..32).map(|i| code(&packed, i, bits)).collect::<Vec<_>>(), codes);
        }
    }

    #[test]
    fn every_group_has_its_own_scale_and_bias() {
        let format = WeightFormat::Affine { bits: 4, group: 32, scale: Float::F32 };
        let spec = WeightSpec { rows: 2, cols: 64, format };
        let scales: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|s| s.to_le_bytes()).collect();
        let biases: Vec<u8> = [0.5f32, 0.0, -1.0, 10.0].iter().flat_map(|b| b.to_le_bytes()).collect();
        let source = WeightSource { values: &[0x21; 64], scales: &scales, biases: &biases };
        let matrix = dequantize(&spec, &source).unwrap();
        assert_eq!((matrix.row(0)[0], matrix.row(0)[1]), (1.5, 2.5));
        assert_eq!((matrix.row(0)[32], matrix.row(0)[33]), (2.0, 4.0));
        assert_eq!((matrix.row(1)[0], matrix.row(1)[31]), (2.0, 5.0));
        assert_eq!((matrix.row(1)[32], matrix.row(1)[63]), (14.0, 18.0));
    }

    #[test]
    fn dense_values_are_widened_and_wrong_lengths_refused() {
        let spec = WeightSpec { rows: 1, cols: 2, format: WeightFormat::Dense(Float::Bf16) };
        let source = WeightSource { values: &[0x80, 0x3f, 0x00, 0xc0], scales: &[], biases: &[] };
        assert_eq!(dequantize(&spec, &source).unwrap().values, [1.0, -2.0]);
        let short = WeightSource { values: &[0; 3], ..source };
        assert!(dequantize(&spec, &short).is_err());
    }
}
