use super::lowering::Lowering;
use super::weight::PackedWeight;
use crate::pool::Worker;
use crate::share::Share;
use crate::view::View;
use mlx_serving_device::ops::{Embed, SAMPLED};
use mlx_serving_device::{DeviceError, Result};

/// An [`Embed`] ready to run.
pub(crate) struct EmbedStep {
    table: Vec<PackedWeight>,
    width: usize,
    scale: f32,
    tokens: View<u32>,
    sampled: Option<View<u32>>,
    out: View<f32>,
    share: Share,
}

impl EmbedStep {
    pub(super) fn new(op: Embed, lowering: &Lowering) -> Result<Self> {
        let width = op.table[0].spec.cols;
        Ok(Self {
            table: op.table.iter().map(PackedWeight::new).collect::<Result<_>>()?,
            width,
            scale: op.scale,
            tokens: View::new(&op.tokens, op.rows)?,
            sampled: op.sampled.as_ref().map(View::whole).transpose()?,
            out: View::new(&op.out, op.rows * width)?,
            share: Share::new(lowering.workers),
        })
    }

    pub(super) fn run(&self, worker: &Worker) -> Result<()> {
        for rows in self.share.take(worker.index, self.tokens.len(), 1) {
            for row in rows {
                let token = self.token(row)?;
                // SAFETY: the row is this worker's own.
                let out = unsafe { self.out.get_mut(row * self.width..(row + 1) * self.width) };
                self.look_up(token, out)?;
                out.iter_mut().for_each(|x| *x *= self.scale);
            }
        }
        Ok(())
    }

    fn token(&self, row: usize) -> Result<usize> {
        // SAFETY: the host wrote the tokens before it submitted.
        let word = unsafe { self.tokens.item(row) };
        if word & SAMPLED == 0 {
            return Ok(word as usize);
        }
        let at = (word & !SAMPLED) as usize;
        let Some(sampled) = self.sampled.as_ref().filter(|sampled| at < sampled.len()) else {
            return Err(DeviceError::Contract(format!(
                "embed: row {row} takes sampled token {at}, which is not there"
            )));
        };
        // SAFETY: an earlier submission wrote the sampled tokens.
        let token = unsafe { sampled.item(at) };
        // A sequence whose logits were not finite has no token; what follows is discarded, and must not fail for its neighbors.
        Ok(if token == u32::MAX { 0 } else { token as usize })
    }

    fn look_up(&self, token: usize, out: &mut [f32]) -> Result<()> {
        let mut row = token;
        for part in &self.table {
            if row < part.rows() {
                part.row(row, out);
                return Ok(());
            }
            row -= part.rows();
        }
        let vocabulary: usize = self.table.iter().map(PackedWeight::rows).sum();
        Err(DeviceError::Contract(format!("embed: token {token} in a vocabulary of {vocabulary}")))
    }
}
