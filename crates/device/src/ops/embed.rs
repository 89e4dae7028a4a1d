use super::check::{holds, require};
use crate::{Buffer, Result, Weight};

/// `out[r]` = `table[token(r)]` · `scale`, dequantized to `f32`.
#[derive(Debug, Clone)]
pub struct Embed {
    /// (vocabulary, width), possibly split by rows into several weights of the same width.
    pub table: Vec<Weight>,
    /// u32 `[rows]`; see [`super::SAMPLED`].
    pub tokens: Buffer,
    /// u32: the previous step's sampled tokens, if any row refers to them.
    pub sampled: Option<Buffer>,
    /// Factor of all values.
    pub scale: f32,
    /// Rows.
    pub rows: usize,
    /// f32 `[rows][width]`.
    pub out: Buffer,
}

impl Embed {
    pub(super) fn buffers(&self) -> Vec<&Buffer> {
        let table = self.table.iter().map(|part| &part.buffer);
        table.chain([&self.tokens, &self.out]).chain(&self.sampled).collect()
    }

    pub(super) fn validate(&self) -> Result<()> {
        require(!self.table.is_empty(), || "embed: no table".into())?;
        let width = self.table[0].spec.cols;
        require(self.table.iter().all(|w| w.spec.cols == width), || "embed: parts of different widths".into())?;
        holds("embed tokens", &self.tokens, self.rows)?;
        holds("embed out", &self.out, self.rows * width)
    }
}

/// Copies bytes between buffers of one length that do not overlap.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Source.
    pub from: Buffer,
    /// Destination.
    pub to: Buffer,
}

impl Copy {
    pub(super) fn validate(&self) -> Result<()> {
        require(self.from.len() == self.to.len() && !self.from.overlaps(&self.to), || {
            format!("copy from {:?} to {:?}", self.from, self.to)
        })
    }
}
