use super::check::{holds, require};
use crate::{Buffer, Result};

/// A token word with this bit set means "token `word & !SAMPLED` of the previous step's [`super::Sample::out`]".
pub const SAMPLED: u32 = 1 << 31;

/// Rows of one sequence in a ragged batch.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Span {
    /// First of the sequence's rows in the batch.
    pub first_row: u32,
    /// Number of rows: 1 when decoding, a chunk of the prompt when prefilling.
    pub rows: u32,
    /// Position of the first row: how many of the sequence's tokens are in the KV cache already.
    pub start: u32,
    /// Start of the sequence's block table in [`Batch::block_tables`].
    pub table: u32,
}

/// A ragged batch: rows of several sequences, some prefilling, some decoding. The buffers are a step's inputs; the device
/// reads them when the ops run, so the host writes them before it submits and not again until the step has completed.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Rows in all.
    pub rows: usize,
    /// Sequences.
    pub sequences: usize,
    /// Bound of the positions in the batch: all are below it.
    pub max_context: usize,
    /// u32 `[rows]`: position of each row in its sequence.
    pub positions: Buffer,
    /// [`Span`] `[sequences]`, in row order, covering all rows.
    pub spans: Buffer,
    /// u32: indices of KV blocks, a run for each sequence, [`Span::table`] says where.
    pub block_tables: Buffer,
}

impl Batch {
    pub(super) fn validate(&self) -> Result<()> {
        require(self.rows > 0 && self.sequences > 0 && self.sequences <= self.rows, || {
            format!("empty batch: {self:?}")
        })?;
        holds("positions", &self.positions, self.rows)?;
        holds("spans", &self.spans, 4 * self.sequences)
    }
}
