use super::check::{holds, require};
use crate::{Buffer, Result};

/// Treatment of a router's logits.
#[derive(Debug, Clone)]
pub enum Scoring {
    /// Probabilities over all experts; the largest are chosen.
    Softmax,
    /// Of each expert by itself; the largest are chosen after a bias has been added, which the weights are without.
    Sigmoid {
        /// f32 `[experts]`.
        bias: Buffer,
    },
}

/// Choice of the experts of every row, and their weights.
///
/// The chosen lie from the largest score to the smallest, of equal ones the lower expert first. A row with a score that is not finite has
/// the first experts, and weights that are not a number, so that its own results are none and nobody else's suffer.
#[derive(Debug, Clone)]
pub struct Route {
    /// f32 `[rows][experts]`.
    pub logits: Buffer,
    /// Rows.
    pub rows: usize,
    /// Experts, at most [`Self::MAX_EXPERTS`].
    pub experts: usize,
    /// Experts of a row, at most all.
    pub slots: usize,
    /// From logits to scores, which are the weights.
    pub scoring: Scoring,
    /// The weights of a row are divided by their sum.
    pub renormalize: bool,
    /// Factor of the weights, last.
    pub factor: f32,
    /// u32 `[rows][slots]`.
    pub chosen: Buffer,
    /// f32 `[rows][slots]`.
    pub weights: Buffer,
}

impl Route {
    /// Experts that a workgroup of a GPU has room for.
    pub const MAX_EXPERTS: usize = 1024;

    pub(super) fn buffers(&self) -> Vec<&Buffer> {
        let bias = if let Scoring::Sigmoid { bias } = &self.scoring { Some(bias) } else { None };
        [&self.logits, &self.chosen, &self.weights].into_iter().chain(bias).collect()
    }

    pub(super) fn validate(&self) -> Result<()> {
        let Self { rows, experts, slots, .. } = *self;
        require(rows > 0, || "route: nothing to do".into())?;
        require((1..=Self::MAX_EXPERTS).contains(&experts), || {
            format!("route: {experts} experts; there may be 1 to {}", Self::MAX_EXPERTS)
        })?;
        require((1..=experts).contains(&slots), || format!("route: {slots} of {experts} experts"))?;
        require(self.factor.is_finite(), || format!("route: a factor of {}", self.factor))?;
        holds("route logits", &self.logits, rows * experts)?;
        holds("route chosen", &self.chosen, rows * slots)?;
        holds("route weights", &self.weights, rows * slots)?;
        if let Scoring::Sigmoid { bias } = &self.scoring {
            holds("route bias", bias, experts)?;
        }
        let apart = !self.logits.overlaps(&self.chosen) && !self.logits.overlaps(&self.weights);
        require(apart && !self.chosen.overlaps(&self.weights), || "route: its buffers overlap".into())
    }
}
