//! The rows of a checkpoint's matrices, read from the file into a device's layout.

use crate::blueprint::StackSpec;
use mlx_serving_checkpoint::{Checkpoint, CheckpointError, Dtype, LinearFormat, SmallFloat};
use mlx_serving_device::{Device, Float, Micro, WeightFormat, WeightSource, WeightSpec};
use std::ops::Range;

/// Bytes of a checkpoint that are read before they are packed: they stay in a processor's own cache meanwhile.
const PIECE: usize = 512 << 10;

/// A linear module's weight in a checkpoint.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    pub spec: WeightSpec,
    /// Names of values, scales and biases, as far as the format has them.
    pub tensors: Vec<String>,
}

impl Linear {
    /// The weight of a module of shape (`rows`, `cols`).
    pub(super) fn of(checkpoint: &Checkpoint, module: &str, rows: usize, cols: usize) -> Result<Self, CheckpointError> {
        Ok(Self::new(module, rows, cols, checkpoint.linear(module, rows, cols)?))
    }

    /// The matrices of a stack, one after the other.
    pub(super) fn stack(checkpoint: &Checkpoint, module: &str, spec: &StackSpec) -> Result<Self, CheckpointError> {
        let &StackSpec { count, rows, cols, .. } = spec;
        Ok(Self::new(module, count * rows, cols, checkpoint.stack(module, count, rows, cols)?))
    }

    fn new(module: &str, rows: usize, cols: usize, format: LinearFormat) -> Self {
        let (format, tensors): (_, &[&str]) = match format {
            LinearFormat::Quantized { quantization: q, scale_dtype } => {
                let scale = float(scale_dtype);
                (WeightFormat::Affine { bits: q.bits, group: q.group_size, scale }, &["weight", "scales", "biases"])
            }
            LinearFormat::SmallFloat(mode) => {
                let micro = match mode {
                    SmallFloat::Mxfp4 => Micro::Mxfp4,
                    SmallFloat::Nvfp4 => Micro::Nvfp4,
                    SmallFloat::Mxfp8 => Micro::Mxfp8,
                };
                (WeightFormat::Micro(micro), &["weight", "scales"])
            }
            LinearFormat::Dense { dtype } => (WeightFormat::Dense(float(dtype)), &["weight"]),
        };
        let tensors = tensors.iter().map(|tensor| format!("{module}.{tensor}")).collect();
        Self { spec: WeightSpec { rows, cols, format }, tensors }
    }

    /// The same matrix with so many rows.
    fn with_rows(&self, rows: usize) -> WeightSpec {
        WeightSpec { rows, ..self.spec }
    }
}

pub(super) fn float(dtype: Dtype) -> Float {
    match dtype {
        Dtype::F16 => Float::F16,
        Dtype::BF16 => Float::Bf16,
        // The checkpoint admits no other.
        _ => Float::F32,
    }
}

/// Memory that pieces of matrices are read into, one after the other.
#[derive(Debug, Default)]
pub(super) struct Rows(Vec<u8>);

impl Rows {
    /// Packs whole blocks of rows into `out`. Rows that are packed alone lie as they do in their matrix.
    pub(super) fn pack(
        &mut self,
        checkpoint: &Checkpoint,
        linear: &Linear,
        rows: Range<usize>,
        device: &dyn Device,
        out: &mut [u8],
    ) -> Result<(), String> {
        let layout = device.weight_layout(&linear.with_rows(rows.len())).map_err(|e| e.to_string())?;
        let (values, scales, biases) = linear.with_rows(layout.rows_per_block).source_bytes();
        let blocks = (PIECE / (values + scales + biases)).max(1);
        let pieces = rows.clone().step_by(blocks * layout.rows_per_block);
        for (start, out) in pieces.zip(out.chunks_mut(blocks * layout.bytes_per_block)) {
            let piece = linear.with_rows((rows.end - start).min(blocks * layout.rows_per_block));
            let source = self.read(checkpoint, linear, start, &piece).map_err(|e| e.to_string())?;
            let blocks = out.len() / layout.bytes_per_block;
            device.pack_weight(&piece, &source, 0..blocks, out).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Reads the rows of `piece`, of which the first is row `start` of the matrix.
    fn read(
        &mut self,
        checkpoint: &Checkpoint,
        linear: &Linear,
        start: usize,
        piece: &WeightSpec,
    ) -> Result<WeightSource<'_>, CheckpointError> {
        let lengths = piece.source_bytes();
        let before = linear.with_rows(start).source_bytes();
        let need = lengths.0 + lengths.1 + lengths.2;
        if self.0.len() < need {
            self.0.resize(need, 0);
        }
        let (values, sides) = self.0[..need].split_at_mut(lengths.0);
        let (scales, biases) = sides.split_at_mut(lengths.1);
        let parts = [(before.0, &mut *values), (before.1, &mut *scales), (before.2, &mut *biases)];
        for (tensor, (offset, part)) in linear.tensors.iter().zip(parts) {
            checkpoint.read(tensor, offset as u64, part)?;
        }
        Ok(WeightSource { values, scales, biases })
    }
}
