use crate::pool::Worker;
use crate::share::part;
use crate::view::View;
use mlx_serving_device::Result;
use mlx_serving_device::ops::{Growth, RopeAngles};

/// A [`RopeAngles`] ready to run.
pub(crate) struct RopeStep {
    positions: View<u32>,
    inv_freq: View<f32>,
    scale: f32,
    growth: Option<Growth>,
    out: View<[f32; 2]>,
}

impl RopeStep {
    pub(super) fn new(op: &RopeAngles) -> Result<Self> {
        Ok(Self {
            positions: View::new(&op.positions, op.rows)?,
            inv_freq: View::new(&op.inv_freq, op.pairs)?,
            scale: op.scale,
            growth: op.growth,
            out: View::new(&op.out, op.rows * op.pairs)?,
        })
    }

    pub(super) fn run(&self, worker: &Worker) {
        let rows = part(self.positions.len(), worker.index, worker.count);
        let pairs = self.inv_freq.len();
        // SAFETY: the host wrote positions and frequencies; the rows of `out` are this worker's own.
        let (positions, inv_freq, out) = unsafe {
            (
                self.positions.get(rows.clone()),
                self.inv_freq.all(),
                self.out.get_mut(rows.start * pairs..rows.end * pairs),
            )
        };
        for (row, position) in positions.iter().enumerate() {
            let grown = self.growth.map_or(1.0, |by| 1.0 + by.beta * ((1 + position / by.every) as f32).ln());
            let scale = self.scale * grown;
            for (out, freq) in out[row * pairs..(row + 1) * pairs].iter_mut().zip(inv_freq) {
                let (sin, cos) = (*position as f32 * freq).sin_cos();
                *out = [cos * scale, sin * scale];
            }
        }
    }
}
