use crate::request::MAX_BIASES;
use crate::schedule::plan::Plan;
use mlx_serving_device::ops::{LogitBias, SampleParams, Span};
use mlx_serving_device::{Buffer, Result};
use mlx_serving_model::inputs::{self, ALIGN, Packer};

/// Bounds that decide how long a step's inputs are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub rows: usize,
    pub sequences: usize,
    pub blocks_per_sequence: usize,
    /// Words of a mask.
    pub mask_words: usize,
}

impl Bounds {
    /// Bytes of a step's inputs: the longest step, every array aligned, and the masks and the sampled tokens at the end.
    pub(crate) fn bytes(&self) -> u64 {
        let words = [
            2 * self.rows,
            self.sequences * (size_of::<Span>() + size_of::<SampleParams>()) / 4,
            self.sequences * (2 + self.blocks_per_sequence + MAX_BIASES * size_of::<LogitBias>() / 4),
        ];
        4 * (words.iter().sum::<usize>() + self.sequences * self.mask_words) as u64 + 9 * ALIGN
    }

    /// Place of the sampled tokens: always the same, so that the next step can refer to it.
    pub(crate) fn sampled(&self, inputs: &Buffer) -> Result<Buffer> {
        let len = (4 * self.sequences as u64).next_multiple_of(ALIGN);
        let start = (inputs.len() - len) / ALIGN * ALIGN;
        inputs.slice(start..start + 4 * self.sequences as u64)
    }

    /// Place of the masks, in front of the sampled tokens: u32 `[sequences][mask words]`. Nothing else is written there, at any time.
    pub(crate) fn masks(&self, inputs: &Buffer) -> Result<Buffer> {
        let (sampled, len) = (self.sampled(inputs)?, 4 * (self.sequences * self.mask_words) as u64);
        let start = (sampled.offset() - inputs.offset() - len) / ALIGN * ALIGN;
        inputs.slice(start..start + len)
    }
}

/// A step's inputs in device memory.
#[derive(Debug)]
pub(crate) struct StepInputs {
    pub sequences: inputs::StepInputs,
    pub params: Buffer,
    pub biases: Buffer,
}

/// Writes a plan's inputs to `host`. They are returned as views of `device`, into which as many bytes as are returned beside them
/// are to be copied, if it is not `host` itself.
pub(crate) fn pack(host: &Buffer, device: &Buffer, plan: &Plan) -> Result<(StepInputs, u64)> {
    let mut packer = Packer::new(host, device);
    let inputs = StepInputs {
        sequences: packer.sequences(&plan.batch)?,
        params: packer.put(&plan.params)?,
        biases: packer.put(&plan.biases)?,
    };
    Ok((inputs, packer.bytes()))
}
