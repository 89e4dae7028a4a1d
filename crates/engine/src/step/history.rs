use crate::schedule::plan::Plan;
use crate::step::failure::Refusal;
use mlx_serving_device::ops::Observe;
use mlx_serving_device::{Buffer, Encoder, Op, Result, Storage};
use mlx_serving_metal_layer::{Allocate, Allocation};

/// Token counts of the sequences that penalize, a row for each; allocated when the first of them comes.
pub(crate) struct History {
    counts: Option<Allocation>,
    rows: usize,
    vocab: usize,
}

impl History {
    /// Room for so many sequences.
    pub(crate) fn new(rows: usize, vocab: usize) -> Self {
        Self { counts: None, rows, vocab }
    }

    /// The counts, if anybody penalizes.
    pub(crate) fn buffer(&self) -> Option<Buffer> {
        self.counts.as_ref().map(|counts| (**counts).clone())
    }

    /// Counts the tokens so far of the sequences that begin to penalize with this step. What is returned is to be kept until it is
    /// submitted.
    pub(crate) fn observe(
        &mut self,
        encoder: &mut dyn Encoder,
        plan: &Plan,
        allocate: &dyn Allocate,
    ) -> Result<Vec<Allocation>, Refusal> {
        let mut held = Vec::new();
        for part in &plan.parts {
            let Some(observed) = &part.observe else { continue };
            let alone = |error| Refusal { error, sequence: Some(part.id) };
            let history = self.reserve(allocate).map_err(alone)?;
            let (tokens, count) = (&observed.tokens, observed.tokens.len());
            let buffer = allocate.allocate(4 * count as u64, Storage::Shared, "prompt tokens").map_err(alone)?;
            buffer.write(0, tokens)?;
            encoder.record(Op::Observe(Observe {
                history,
                vocab: self.vocab,
                history_row: observed.row as usize,
                tokens: (*buffer).clone(),
                count,
                prompt: observed.prompt,
            }))?;
            held.push(buffer);
        }
        Ok(held)
    }

    fn reserve(&mut self, allocate: &dyn Allocate) -> Result<Buffer> {
        let counts = match self.counts.take() {
            Some(counts) => counts,
            None => allocate.allocate(4 * (self.rows * self.vocab) as u64, Storage::Private, "history")?,
        };
        Ok((**self.counts.insert(counts)).clone())
    }
}
