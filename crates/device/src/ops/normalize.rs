use super::check::{holds, require};
use super::linear::Norm;
use crate::{Buffer, Result};

/// RMS norm of the same columns of every row: `target[r]` += norm(`input[r][columns]`), or without a target in place.
///
/// [`super::Linear`] and [`super::Attend`] have the norms that come before a product or of single heads; this is for those behind a
/// product, and those over all heads of a row.
#[derive(Debug, Clone)]
pub struct Normalize {
    /// f32 `[rows][stride]`.
    pub input: Buffer,
    /// Rows.
    pub rows: usize,
    /// Values from one row to the next.
    pub stride: usize,
    /// First of the columns.
    pub first: usize,
    /// Columns.
    pub width: usize,
    /// Norm over the columns, f32 `[width]`.
    pub norm: Norm,
    /// f32 `[rows][width]` that the result is added to; without it the result replaces the columns.
    pub target: Option<Buffer>,
}

impl Normalize {
    pub(super) fn buffers(&self) -> Vec<&Buffer> {
        [&self.input, &self.norm.weight].into_iter().chain(&self.target).collect()
    }

    pub(super) fn validate(&self) -> Result<()> {
        require(self.rows > 0 && self.width > 0, || "normalize: nothing to do".into())?;
        require(self.first + self.width <= self.stride, || {
            format!("normalize: {} columns from {} of {}", self.width, self.first, self.stride)
        })?;
        holds("normalize input", &self.input, self.rows * self.stride)?;
        holds("normalize norm", &self.norm.weight, self.width)?;
        let Some(target) = &self.target else { return Ok(()) };
        require(!target.overlaps(&self.input), || "normalize: the target overlaps the input".into())?;
        holds("normalize target", target, self.rows * self.width)
    }
}
