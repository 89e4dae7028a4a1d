use crate::schedule::plan::Plan;
use crate::step::failure::Refusal;
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Encoder, Op, Result, Storage};
use mlx_serving_metal_layer::{Allocate, Allocation};
use mlx_serving_model::Scratch;
use std::ops::Range;

/// Rows of a step's residual stream where the host reads them, each at its place in the step; allocated when the first request comes that
/// asks for an embedding.
pub(crate) struct HiddenReader {
    readable: Option<Allocation>,
    rows: usize,
    width: usize,
}

impl HiddenReader {
    /// Room for steps of so many rows.
    pub(crate) fn new(rows: usize, width: usize) -> Self {
        Self { readable: None, rows, width }
    }

    /// Takes the memory that a plan needs.
    pub(crate) fn reserve(&mut self, plan: &Plan, allocate: &dyn Allocate) -> Result<(), Refusal> {
        if let Some(part) = plan.parts.iter().find(|part| part.hidden.is_some())
            && self.readable.is_none()
        {
            let memory = allocate.allocate(4 * (self.rows * self.width) as u64, Storage::Shared, "hidden states");
            self.readable = Some(memory.map_err(|error| Refusal { error, sequence: Some(part.id) })?);
        }
        Ok(())
    }

    /// Records, after a step's ops, what brings the rows that its plan reads.
    pub(crate) fn copy(&self, encoder: &mut dyn Encoder, plan: &Plan, scratch: &Scratch) -> Result<()> {
        let Some(readable) = &self.readable else { return Ok(()) };
        for rows in plan.parts.iter().filter_map(|part| part.hidden.clone()) {
            let bytes = self.at(rows.start)..self.at(rows.end);
            encoder.record(Op::Copy(Copy { from: scratch.hidden(rows)?, to: readable.slice(bytes)? }))?;
        }
        Ok(())
    }

    /// Rows of the last completed step, f32 `[rows][width]`.
    pub(crate) fn read(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let mut values = vec![0f32; rows.len() * self.width];
        if let Some(readable) = &self.readable {
            readable.read(self.at(rows.start), &mut values)?;
        }
        Ok(values)
    }

    fn at(&self, row: usize) -> u64 {
        4 * (row * self.width) as u64
    }
}
