//! A step's inputs: sequences, laid out as arrays and packed into memory that the device reads.

use mlx_serving_device::ops::{Batch, Span};
use mlx_serving_device::{Buffer, Result};

/// Every array starts at a multiple of this: the strictest binding alignment of the backends.
pub const ALIGN: u64 = 256;

/// Arrays of a ragged batch, as the host has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sequences {
    /// Token words, see [`mlx_serving_device::ops::SAMPLED`].
    pub tokens: Vec<u32>,
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// Rows of each sequence.
    pub spans: Vec<Span>,
    /// Block tables, one after the other.
    pub tables: Vec<u32>,
    /// Rows whose logits are wanted.
    pub logit_rows: Vec<u32>,
    /// Prompt length of each span's sequence.
    pub prompts: Vec<u32>,
    /// One beyond the largest position.
    pub max_context: usize,
}

impl Sequences {
    /// Appends a sequence's rows: its tokens from position `start` on, whose prompt has `prompt` tokens, in these KV blocks.
    pub fn push(&mut self, tokens: &[u32], start: usize, prompt: usize, blocks: impl IntoIterator<Item = u32>) {
        let rows = tokens.len() as u32;
        let (first_row, table) = (self.tokens.len() as u32, self.tables.len() as u32);
        self.spans.push(Span { first_row, rows, start: start as u32, table });
        self.positions.extend(start as u32..start as u32 + rows);
        self.tokens.extend_from_slice(tokens);
        self.tables.extend(blocks);
        self.prompts.push(prompt as u32);
        self.max_context = self.max_context.max(start + tokens.len());
    }

    /// Bytes that [`Packer::sequences`] takes.
    pub fn bytes(&self) -> u64 {
        let lengths =
            [&self.tokens, &self.positions, &self.tables, &self.logit_rows].map(|values| size_of_val(&values[..]));
        lengths.into_iter().chain([size_of_val(&self.spans[..])]).map(|len| (len as u64).next_multiple_of(ALIGN)).sum()
    }
}

/// A step's inputs in device memory.
#[derive(Debug)]
pub struct StepInputs {
    /// The ragged batch.
    pub batch: Batch,
    /// `u32 [rows]`
    pub tokens: Buffer,
    /// `u32 [logit rows]`
    pub logit_rows: Buffer,
}

/// One step of a model.
#[derive(Debug)]
pub struct Step<'a> {
    /// The ragged batch.
    pub batch: Batch,
    /// `u32 [rows]`; see [`mlx_serving_device::ops::SAMPLED`].
    pub tokens: Buffer,
    /// The previous step's sampled tokens, if a row refers to them.
    pub sampled: Option<Buffer>,
    /// `u32 [logit_count]`: rows whose logits are wanted.
    pub logit_rows: Buffer,
    /// Number of those rows.
    pub logit_count: usize,
    /// The batch's spans, as the host knows them.
    pub spans: &'a [Span],
    /// Prompt length of each span's sequence.
    pub prompts: &'a [u32],
}

impl StepInputs {
    /// The step that computes these sequences, which are those that were packed.
    pub fn step(self, of: &Sequences) -> Step<'_> {
        let Self { batch, tokens, logit_rows } = self;
        let (logit_count, sampled) = (of.logit_rows.len(), None);
        Step { batch, tokens, sampled, logit_rows, logit_count, spans: &of.spans, prompts: &of.prompts }
    }
}

/// Writes arrays one after the other.
#[derive(Debug)]
pub struct Packer<'a> {
    host: &'a Buffer,
    device: &'a Buffer,
    at: u64,
}

impl<'a> Packer<'a> {
    /// Writes into `host`. The places that it returns are views of `device`, into which the bytes written are to be copied, if it is not
    /// `host` itself.
    pub fn new(host: &'a Buffer, device: &'a Buffer) -> Self {
        Self { host, device, at: 0 }
    }

    /// Writes one array.
    pub fn put<T: bytemuck::NoUninit>(&mut self, values: &[T]) -> Result<Buffer> {
        let len = size_of_val(values) as u64;
        self.host.write(self.at, values)?;
        let place = self.device.slice(self.at..self.at + len)?;
        self.at = (self.at + len).next_multiple_of(ALIGN);
        Ok(place)
    }

    /// Writes the arrays of a ragged batch.
    pub fn sequences(&mut self, of: &Sequences) -> Result<StepInputs> {
        Ok(StepInputs {
            tokens: self.put(&of.tokens)?,
            batch: Batch {
                rows: of.tokens.len(),
                sequences: of.spans.len(),
                max_context: of.max_context,
                positions: self.put(&of.positions)?,
                spans: self.put(&of.spans)?,
                block_tables: self.put(&of.tables)?,
            },
            logit_rows: self.put(&of.logit_rows)?,
        })
    }

    /// Bytes written, the last array's padding included.
    pub fn bytes(&self) -> u64 {
        self.at
    }
}
