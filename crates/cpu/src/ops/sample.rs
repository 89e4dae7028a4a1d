use super::Lowering;
use crate::kernels::sampling::{Choice, choose};
use crate::pool::Worker;
use crate::share::Share;
use crate::view::View;
use mlx_serving_device::ops::{LogitBias, NO_SLOT, Sample, SampleParams};
use mlx_serving_device::{DeviceError, Result};
use std::ops::Range;

/// A [`Sample`] ready to run.
pub(crate) struct SampleStep {
    logits: View<f32>,
    vocab: usize,
    params: View<SampleParams>,
    biases: View<LogitBias>,
    history: Option<View<u32>>,
    out: View<u32>,
    share: Share,
}

impl SampleStep {
    pub(super) fn new(op: &Sample, lowering: &Lowering) -> Result<Self> {
        Ok(Self {
            logits: View::new(&op.logits, op.rows * op.vocab)?,
            vocab: op.vocab,
            params: View::new(&op.params, op.rows)?,
            biases: View::whole(&op.biases)?,
            history: op.history.as_ref().map(View::whole).transpose()?,
            out: View::new(&op.out, op.rows)?,
            share: Share::new(lowering.workers),
        })
    }

    pub(super) fn shared_bytes(&self) -> usize {
        0
    }

    pub(super) fn run(&self, worker: &Worker) -> Result<()> {
        for rows in self.share.take(worker.index, self.params.len(), 1) {
            for row in rows {
                self.choose(row)?;
            }
        }
        Ok(())
    }

    fn choose(&self, row: usize) -> Result<()> {
        // SAFETY: the host wrote the params before it submitted.
        let params = unsafe { self.params.get(row..row + 1) }[0];
        // SAFETY: a slot belongs to one sequence, which has one row in a batch.
        let mut history = self.history_row(&params)?.map(|(history, at)| unsafe { history.get_mut(at) });
        let choice = Choice {
            // SAFETY: an earlier op wrote the logits.
            logits: unsafe { self.logits.get(row * self.vocab..(row + 1) * self.vocab) },
            params: &params,
            biases: self.bias_list(&params)?,
            history: history.as_deref(),
        };
        let token = choose(&choice);
        if let Some(entry) = history.as_mut().and_then(|row| row.get_mut(token as usize)) {
            *entry += 1;
        }
        // SAFETY: the row is this worker's own.
        let out = unsafe { self.out.get_mut(row..row + 1) };
        out[0] = token;
        Ok(())
    }

    /// Where the history of a row with penalties lies.
    fn history_row(&self, params: &SampleParams) -> Result<Option<(&View<u32>, Range<usize>)>> {
        if params.slot == NO_SLOT {
            return Ok(None);
        }
        let at = params.slot as usize * self.vocab;
        let history = self.history.as_ref().filter(|history| at + self.vocab <= history.len());
        let history =
            history.ok_or_else(|| DeviceError::Contract(format!("sample: slot {} in no history", params.slot)))?;
        Ok(Some((history, at..at + self.vocab)))
    }

    fn bias_list(&self, params: &SampleParams) -> Result<&[LogitBias]> {
        let first = params.bias_first as usize;
        let end = first + params.bias_count as usize;
        if params.bias_count == 0 {
            return Ok(&[]);
        }
        if end > self.biases.len() {
            let text = format!("sample: biases {first}..{end} of {}", self.biases.len());
            return Err(DeviceError::Contract(text));
        }
        // SAFETY: the host wrote the biases before it submitted.
        Ok(unsafe { self.biases.get(first..end) })
    }
}
