use super::check::{holds, require};
use super::linear::{Activation, Norm};
use crate::{Buffer, Result, Weight};

/// Matrices of all experts, stacked, and the destination of the products.
#[derive(Debug, Clone)]
pub enum Stacks {
    /// `out[r][s]` = activation(`gate_e` x) · `up_e` x, x the row's input.
    Gated {
        /// (experts · features out, features in).
        gate: Weight,
        /// As the gate, if need be in another format.
        up: Weight,
        /// Activation of the gate.
        activation: Activation,
        /// f32 `[rows][slots][features]`.
        out: Buffer,
    },
    /// `out[r]` += Σ over slots, from the first to the last, of `weights[r][s]` · `down_e` x, x the slot's own input.
    Sum {
        /// (experts · features out, features in).
        down: Weight,
        /// f32 `[rows][slots]`.
        weights: Buffer,
        /// f32 `[rows][features]`.
        out: Buffer,
    },
}

/// Products with the matrices of each row's chosen experts, e = `chosen[r][s]`. Only their weights are read.
#[derive(Debug, Clone)]
pub struct Experts {
    /// f32 `[rows][features in]` for [`Stacks::Gated`], `[rows][slots][features in]` for [`Stacks::Sum`].
    pub input: Buffer,
    /// Rows.
    pub rows: usize,
    /// u32 `[rows][slots]`: an expert that there is not is an error.
    pub chosen: Buffer,
    /// Experts of a row.
    pub slots: usize,
    /// Experts that there are.
    pub experts: usize,
    /// Norm on the way in.
    pub norm: Option<Norm>,
    /// The matrices.
    pub stacks: Stacks,
}

impl Experts {
    /// An expert's features out are a multiple of this, so that it begins with a block in every backend's layout.
    pub const FEATURES: usize = 16;

    /// The first of the stacks, after whose shape the others are.
    pub fn stack(&self) -> &Weight {
        match &self.stacks {
            Stacks::Gated { gate, .. } => gate,
            Stacks::Sum { down, .. } => down,
        }
    }

    /// Features in.
    pub fn cols(&self) -> usize {
        self.stack().spec.cols
    }

    /// Features out of one expert.
    pub fn features(&self) -> usize {
        self.stack().spec.rows / self.experts
    }

    pub(super) fn buffers(&self) -> Vec<&Buffer> {
        let stacks = match &self.stacks {
            Stacks::Gated { gate, up, out, .. } => [&gate.buffer, &up.buffer, out],
            Stacks::Sum { down, weights, out } => [&down.buffer, weights, out],
        };
        let norm = self.norm.iter().map(|norm| &norm.weight);
        [&self.input, &self.chosen].into_iter().chain(norm).chain(stacks).collect()
    }

    pub(super) fn validate(&self) -> Result<()> {
        let Self { rows, slots, experts, .. } = *self;
        require(rows > 0 && slots > 0 && experts > 0, || "experts: nothing to do".into())?;
        let spec = self.stack().spec;
        require(spec.rows.is_multiple_of(experts * Self::FEATURES), || {
            format!(
                "experts: {} features of {experts} experts; each must have a multiple of {}",
                spec.rows,
                Self::FEATURES
            )
        })?;
        let (cols, features) = (self.cols(), self.features());
        holds("experts chosen", &self.chosen, rows * slots)?;
        if let Some(norm) = &self.norm {
            holds("experts norm", &norm.weight, cols)?;
        }
        let (inputs, out, outputs) = match &self.stacks {
            Stacks::Gated { up, out, .. } => {
                require((up.spec.rows, up.spec.cols) == (spec.rows, cols), || "experts: gate and up differ".into())?;
                (rows, out, rows * slots)
            }
            Stacks::Sum { weights, out, .. } => {
                holds("experts weights", weights, rows * slots)?;
                (rows * slots, out, rows)
            }
        };
        holds("experts input", &self.input, inputs * cols)?;
        holds("experts out", out, outputs * features)?;
        require(!self.input.overlaps(out), || "experts: the output overlaps the input".into())
    }
}
