use crate::schedule::plan::Plan;
use mlx_serving_device::ops::{Batch, LogitBias, SampleParams, Span};
use mlx_serving_device::{Buffer, Result};

/// Every array starts at a multiple of this: the strictest binding alignment of the backends.
const ALIGN: u64 = 256;

/// Largest number of logit biases that one step carries for each sequence.
pub(crate) const MAX_BIASES: usize = 1024;

/// Bounds that decide how long a step's inputs are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub rows: usize,
    pub sequences: usize,
    pub blocks_per_sequence: usize,
}

impl Bounds {
    /// Bytes of a step's inputs: the longest step, every array aligned, and the sampled tokens at the end.
    pub(crate) fn bytes(&self) -> u64 {
        let words = [
            2 * self.rows,
            self.sequences * (size_of::<Span>() + size_of::<SampleParams>()) / 4,
            self.sequences * (2 + self.blocks_per_sequence + MAX_BIASES * size_of::<LogitBias>() / 4),
        ];
        4 * words.iter().sum::<usize>() as u64 + 8 * ALIGN
    }

    /// Place of the sampled tokens: always the same, so that the next step can refer to it.
    pub(crate) fn sampled(&self, inputs: &Buffer) -> Result<Buffer> {
        let len = (4 * self.sequences as u64).next_multiple_of(ALIGN);
        let start = (inputs.len() - len) / ALIGN * ALIGN;
        inputs.slice(start..start + 4 * self.sequences as u64)
    }
}

/// A step's inputs in device memory.
#[derive(Debug)]
pub(crate) struct StepInputs {
    pub batch: Batch,
    pub tokens: Buffer,
    pub logit_rows: Buffer,
    pub params: Buffer,
    pub biases: Buffer,
}

/// Writes a plan's inputs to `host`. They are returned as views of `device`, into which as many bytes as are returned beside them
/// are to be copied, if it is not `host` itself.
pub(crate) fn pack(host: &Buffer, device: &Buffer, plan: &Plan) -> Result<(StepInputs, u64)> {
    let mut cursor = Cursor { host, device, at: 0 };
    let inputs = StepInputs {
        tokens: cursor.put(&plan.tokens)?,
        batch: Batch {
            rows: plan.tokens.len(),
            sequences: plan.spans.len(),
            max_context: plan.max_context,
            positions: cursor.put(&plan.positions)?,
            spans: cursor.put(&plan.spans)?,
            block_tables: cursor.put(&plan.tables)?,
        },
        logit_rows: cursor.put(&plan.logit_rows)?,
        params: cursor.put(&plan.params)?,
        biases: cursor.put(&plan.biases)?,
    };
    Ok((inputs, cursor.at))
}

struct Cursor<'a> {
    host: &'a Buffer,
    device: &'a Buffer,
    at: u64,
}

impl Cursor<'_> {
    fn put<T: bytemuck::NoUninit>(&mut self, values: &[T]) -> Result<Buffer> {
        let len = size_of_val(values) as u64;
        self.host.write(self.at, values)?;
        let place = self.device.slice(self.at..self.at + len)?;
        self.at = (self.at + len).next_multiple_of(ALIGN);
        Ok(place)
    }
}
