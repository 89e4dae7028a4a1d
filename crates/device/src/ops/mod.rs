//! The operations: few and fused, because a GPU pays for launches and a CPU for barriers.
//!
//! A transformer layer is five of them: [`Linear`] (norm → q, k, v), [`Attend`], [`Linear`] (→ residual), [`Linear`]
//! (norm → gate · up), [`Linear`] (→ residual); some models' have a [`Normalize`] behind a product, or in the place of the last two a [`Linear`]
//! (norm → logits of experts), [`Route`], [`Experts`] (norm → gate · up) and [`Experts`] (→ residual). All activations are `f32`; matrices are row-major, one row a token.
//! The exact definition of each is in [`crate::oracle`].

mod attend;
mod batch;
mod check;
mod embed;
mod experts;
mod linear;
mod normalize;
mod route;
mod sample;

pub use attend::{Attend, Growth, RopeAngles};
pub use batch::{Batch, SAMPLED, Span};
pub use embed::{Copy, Embed};
pub use experts::{Experts, Stacks};
pub use linear::{Activation, Epilogue, Linear, Norm, Projection};
pub use normalize::Normalize;
pub use route::{Route, Scoring};
pub use sample::{LogitBias, MIN_TEMPERATURE, NO_HISTORY_ROW, NO_MASK_ROW, Observe, Sample, SampleParams};

use crate::{Buffer, DeviceError, Result};

/// A recorded operation.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "an op is moved once, from the model into the encoder")]
pub enum Op {
    /// Token embedding.
    Embed(Embed),
    /// Cosines and sines for rotary embedding.
    RopeAngles(RopeAngles),
    /// Matrix product with its norm, bias, residual and activation.
    Linear(Linear),
    /// Norm behind a product, or over all heads.
    Normalize(Normalize),
    /// Choice of experts.
    Route(Route),
    /// Products with the chosen experts' matrices.
    Experts(Experts),
    /// Attention over the paged KV cache.
    Attend(Attend),
    /// Notes a prompt's tokens for the penalties of sampling.
    Observe(Observe),
    /// Choice of the next tokens.
    Sample(Sample),
    /// Copy of bytes.
    Copy(Copy),
}

impl Op {
    /// The name of its kind, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed(_) => "Embed",
            Op::RopeAngles(_) => "RopeAngles",
            Op::Linear(_) => "Linear",
            Op::Normalize(_) => "Normalize",
            Op::Route(_) => "Route",
            Op::Experts(_) => "Experts",
            Op::Attend(_) => "Attend",
            Op::Observe(_) => "Observe",
            Op::Sample(_) => "Sample",
            Op::Copy(_) => "Copy",
        }
    }

    /// Buffers that the op refers to.
    pub fn buffers(&self) -> Vec<&Buffer> {
        match self {
            Op::Embed(op) => op.buffers(),
            Op::RopeAngles(op) => vec![&op.positions, &op.inv_freq, &op.out],
            Op::Linear(op) => op.buffers(),
            Op::Normalize(op) => op.buffers(),
            Op::Route(op) => op.buffers(),
            Op::Experts(op) => op.buffers(),
            Op::Attend(op) => op.buffers(),
            Op::Observe(op) => vec![&op.history, &op.tokens],
            Op::Sample(op) => op.buffers(),
            Op::Copy(op) => vec![&op.from, &op.to],
        }
    }

    /// Fails if the op refers to a buffer that is longer than `max` bytes ([`crate::DeviceInfo::max_buffer_len`]).
    pub fn check_lengths(&self, max: u64) -> Result<()> {
        match self.buffers().into_iter().find(|buffer| buffer.len() > max) {
            None => Ok(()),
            Some(buffer) => Err(DeviceError::Contract(format!(
                "{} refers to {buffer:?}; at most {max} bytes may be bound",
                self.name()
            ))),
        }
    }

    /// Checks shapes, lengths and ranges: what a backend may take for granted.
    pub fn validate(&self) -> Result<()> {
        match self {
            Op::Embed(op) => op.validate(),
            Op::RopeAngles(op) => op.validate(),
            Op::Linear(op) => op.validate(),
            Op::Normalize(op) => op.validate(),
            Op::Route(op) => op.validate(),
            Op::Experts(op) => op.validate(),
            Op::Attend(op) => op.validate(),
            Op::Observe(op) => op.validate(),
            Op::Sample(op) => op.validate(),
            Op::Copy(op) => op.validate(),
        }
    }
}
