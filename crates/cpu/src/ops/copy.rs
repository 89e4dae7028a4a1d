use super::lowering::Lowering;
use crate::pool::Worker;
use crate::share::Share;
use crate::view::View;
use mlx_serving_device::ops::{Copy, Observe};
use mlx_serving_device::{DeviceError, Result};

/// Bytes that a worker copies at a time. Not measured.
const CHUNK: usize = 256 << 10;
/// A token of the prompt, in a history.
const PROMPT: u32 = 1 << 31;

/// A [`Copy`] ready to run.
pub(crate) struct CopyStep {
    from: View<u8>,
    to: View<u8>,
    share: Share,
}

impl CopyStep {
    pub(super) fn new(op: &Copy, lowering: &Lowering) -> Result<Self> {
        Ok(Self { from: View::whole(&op.from)?, to: View::whole(&op.to)?, share: Share::new(lowering.workers) })
    }

    pub(super) fn run(&self, worker: &Worker) {
        for range in self.share.take(worker.index, self.from.len(), CHUNK) {
            // SAFETY: the two do not overlap, and the range is this worker's own.
            unsafe { self.to.get_mut(range.clone()).copy_from_slice(self.from.get(range)) }
        }
    }
}

/// An [`Observe`] ready to run.
pub(crate) struct ObserveStep {
    /// The row to write.
    row: View<u32>,
    tokens: View<u32>,
    prompt: usize,
}

impl ObserveStep {
    pub(super) fn new(op: &Observe) -> Result<Self> {
        let row = 4 * op.vocab as u64;
        let row = op.history.slice(op.history_row as u64 * row..(op.history_row as u64 + 1) * row)?;
        Ok(Self { row: View::new(&row, op.vocab)?, tokens: View::new(&op.tokens, op.count)?, prompt: op.prompt })
    }

    pub(super) fn run(&self, worker: &Worker) -> Result<()> {
        if worker.index != 0 {
            return Ok(());
        }
        // SAFETY: only worker 0 comes here; the host wrote the tokens.
        let (row, tokens) = unsafe { (self.row.get_mut(0..self.row.len()), self.tokens.all()) };
        row.fill(0);
        let vocab = row.len();
        for (i, &token) in tokens.iter().enumerate() {
            let Some(entry) = row.get_mut(token as usize) else {
                return Err(DeviceError::Contract(format!("observe: token {token} in a vocabulary of {vocab}")));
            };
            if i < self.prompt { *entry |= PROMPT } else { *entry += 1 }
        }
        Ok(())
    }
}
