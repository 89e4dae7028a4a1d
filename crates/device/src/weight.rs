use crate::{Buffer, DeviceError, Micro, Result};

/// Floating-point types of checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Float {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
}

impl Float {
    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Float::F32 => 4,
            Float::F16 | Float::Bf16 => 2,
        }
    }

    /// Widens little-endian values to `f32`. `bytes` holds a whole number of values.
    pub fn widen(self, bytes: &[u8]) -> Vec<f32> {
        let pair = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
        match self {
            Float::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Float::F16 => bytes.chunks_exact(2).map(|b| half::f16::from_bits(pair(b)).to_f32()).collect(),
            Float::Bf16 => bytes.chunks_exact(2).map(|b| half::bf16::from_bits(pair(b)).to_f32()).collect(),
        }
    }
}

/// Format of a weight matrix's values in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// MLX's affine quantization: w = s·q + b per row and group; q packed little-endian, 32 values in `bits` u32 words.
    Affine {
        /// Bits of one q: 2, 3, 4, 5, 6 or 8.
        bits: u8,
        /// Values that share a scale and a bias: 32, 64 or 128.
        group: u16,
        /// Type of scales and biases.
        scale: Float,
    },
    /// Small floats: w = s·v per row and group; codes of v packed little-endian, one byte a scale.
    Micro(Micro),
    /// Plain values.
    Dense(Float),
}

/// Shape and format of a weight matrix: y = W·x with W of `rows` × `cols`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WeightSpec {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Format of the values.
    pub format: WeightFormat,
}

impl WeightSpec {
    /// Bytes of (values, scales, biases) in the checkpoint; small floats have no biases, dense weights no scales either.
    pub fn source_bytes(&self) -> (usize, usize, usize) {
        match self.format {
            WeightFormat::Affine { bits, group, scale } => {
                let side = self.rows * (self.cols / group as usize) * scale.size();
                (self.rows * self.cols * bits as usize / 8, side, side)
            }
            WeightFormat::Micro(micro) => {
                (self.rows * self.cols * micro.bits() / 8, self.rows * (self.cols / micro.group()), 0)
            }
            WeightFormat::Dense(float) => (self.rows * self.cols * float.size(), 0, 0),
        }
    }

    /// Refuses shapes and formats that no backend handles.
    pub fn validate(&self) -> Result<()> {
        let ok = match self.format {
            WeightFormat::Affine { bits, group, .. } => {
                matches!(bits, 2 | 3 | 4 | 5 | 6 | 8)
                    && matches!(group, 32 | 64 | 128)
                    && self.cols.is_multiple_of(group as usize)
            }
            // MLX's kernels want whole words of codes for 32 columns, too.
            WeightFormat::Micro(_) => self.cols.is_multiple_of(32),
            WeightFormat::Dense(_) => true,
        };
        if ok && self.rows > 0 && self.cols > 0 {
            Ok(())
        } else {
            Err(DeviceError::Unsupported(format!("weight {self:?}")))
        }
    }
}

/// The bytes of a weight matrix as the checkpoint has them, row-major.
#[derive(Debug, Clone, Copy)]
pub struct WeightSource<'a> {
    /// Packed codes, or dense values.
    pub values: &'a [u8],
    /// Scales, (rows, cols / group); empty when dense.
    pub scales: &'a [u8],
    /// Biases, as the scales; only affine weights have them.
    pub biases: &'a [u8],
}

impl<'a> WeightSource<'a> {
    /// The part of the matrix that holds `rows`.
    pub fn rows(&self, spec: &WeightSpec, rows: std::ops::Range<usize>) -> WeightSource<'a> {
        let cut = |bytes: &'a [u8]| {
            let row = bytes.len() / spec.rows;
            &bytes[rows.start * row..rows.end * row]
        };
        WeightSource { values: cut(self.values), scales: cut(self.scales), biases: cut(self.biases) }
    }

    /// Checks the three lengths against `spec`, and small floats for codes and scales that are no number: kernels take none.
    pub fn validate(&self, spec: &WeightSpec) -> Result<()> {
        let found = (self.values.len(), self.scales.len(), self.biases.len());
        if found != spec.source_bytes() {
            return Err(DeviceError::Contract(format!(
                "weight source of {found:?} bytes for {spec:?}, which has {:?}",
                spec.source_bytes()
            )));
        }
        let WeightFormat::Micro(micro) = spec.format else { return Ok(()) };
        let scale = self.scales.iter().any(|&byte| micro.scale(byte).is_nan());
        if scale || (micro.bits() == 8 && self.values.iter().any(|&byte| micro.value(byte).is_nan())) {
            let what = if scale { "scale" } else { "value" };
            return Err(DeviceError::Contract(format!("a {what} of {micro:?} weights is not a number")));
        }
        Ok(())
    }
}

/// A backend's storage of a weight: blocks of rows, each a run of bytes of one length, so that any block can be packed and
/// copied alone. A block depends on its own rows only: a matrix of some of the rows, from the first of a block on, has the same
/// blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightLayout {
    /// Rows of one block; the last block may be padded.
    pub rows_per_block: usize,
    /// Bytes of one block.
    pub bytes_per_block: usize,
    /// Number of blocks.
    pub blocks: usize,
}

impl WeightLayout {
    /// Bytes of the whole weight.
    pub fn bytes(&self) -> usize {
        self.bytes_per_block * self.blocks
    }
}

/// A weight in a backend's own layout, in device memory.
#[derive(Debug, Clone)]
pub struct Weight {
    /// Shape and source format.
    pub spec: WeightSpec,
    /// [`WeightLayout::bytes`] bytes.
    pub buffer: Buffer,
}
