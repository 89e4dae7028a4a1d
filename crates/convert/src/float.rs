use half::{bf16, f16};
use safetensors::Dtype;

/// Type of a source's values, and of scales and biases made of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Float {
    F32,
    F16,
    Bf16,
}

impl Float {
    pub(crate) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Float::F32),
            Dtype::F16 => Some(Float::F16),
            Dtype::BF16 => Some(Float::Bf16),
            _ => None,
        }
    }

    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Float::F32 => Dtype::F32,
            Float::F16 => Dtype::F16,
            Float::Bf16 => Dtype::BF16,
        }
    }

    /// Bytes of one value.
    pub(crate) fn size(self) -> usize {
        match self {
            Float::F32 => 4,
            Float::F16 | Float::Bf16 => 2,
        }
    }

    /// Widens little-endian values.
    pub(crate) fn widen(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = || bytes.as_chunks::<2>().0.iter();
        match self {
            Float::F32 => bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            Float::F16 => pairs().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
            Float::Bf16 => pairs().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect(),
        }
    }

    /// The nearest value of the type.
    pub(crate) fn round(self, x: f32) -> f32 {
        match self {
            Float::F32 => x,
            Float::F16 => f16::from_f32(x).to_f32(),
            Float::Bf16 => bf16::from_f32(x).to_f32(),
        }
    }

    /// Appends the nearest value of the type.
    pub(crate) fn push(self, x: f32, to: &mut Vec<u8>) {
        match self {
            Float::F32 => to.extend(x.to_le_bytes()),
            Float::F16 => to.extend(f16::from_f32(x).to_le_bytes()),
            Float::Bf16 => to.extend(bf16::from_f32(x).to_le_bytes()),
        }
    }
}
