//! The operations: few and fused, because a GPU pays for launches and a CPU for barriers.
//!
//! A transformer layer is five of them: [`Linear`] (norm → q, k, v), [`Attend`], [`Linear`] (→ residual), [`Linear`]
//! (norm → gate · up), [`Linear`] (→ residual). All activations are `f32`; matrices are row-major, one row a token.
//! The exact definition of each is in [`crate::oracle`].

mod attend;
mod batch;
mod embed;
mod linear;
mod sample;

pub use attend::{Attend, RopeAngles};
pub use batch::{Batch, SAMPLED, Span};
pub use embed::{Copy, Embed};
pub use linear::{Activation, Epilogue, Linear, Norm, Projection};
pub use sample::{LogitBias, MIN_TEMPERATURE, NO_SLOT, Observe, Sample, SampleParams};

use crate::{Buffer, DeviceError, Result};

/// One recorded operation.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "an op is moved once, from the model into the encoder")]
pub enum Op {
    /// Token embedding.
    Embed(Embed),
    /// Cosines and sines for rotary embedding.
    RopeAngles(RopeAngles),
    /// Matrix product with its norm, bias, residual and activation.
    Linear(Linear),
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
            Op::Attend(_) => "Attend",
            Op::Observe(_) => "Observe",
            Op::Sample(_) => "Sample",
            Op::Copy(_) => "Copy",
        }
    }

    /// Every buffer that it refers to.
    pub fn buffers(&self) -> Vec<&Buffer> {
        match self {
            Op::Embed(op) => op.buffers(),
            Op::RopeAngles(op) => vec![&op.positions, &op.inv_freq, &op.out],
            Op::Linear(op) => op.buffers(),
            Op::Attend(op) => op.buffers(),
            Op::Observe(op) => vec![&op.history, &op.tokens],
            Op::Sample(op) => op.buffers(),
            Op::Copy(op) => vec![&op.from, &op.to],
        }
    }

    /// Checks shapes, lengths and ranges: what a backend may take for granted.
    pub fn validate(&self) -> Result<()> {
        match self {
            Op::Embed(op) => op.validate(),
            Op::RopeAngles(op) => op.validate(),
            Op::Linear(op) => op.validate(),
            Op::Attend(op) => op.validate(),
            Op::Observe(op) => op.validate(),
            Op::Sample(op) => op.validate(),
            Op::Copy(op) => op.validate(),
        }
    }
}

/// Fails unless `buffer` holds at least `values` 4-byte values at a 4-byte offset.
fn holds(what: &str, buffer: &Buffer, values: usize) -> Result<()> {
    if buffer.len() >= 4 * values as u64 && buffer.offset().is_multiple_of(4) {
        return Ok(());
    }
    Err(DeviceError::Contract(format!("{what}: {values} values do not fit {buffer:?}")))
}

/// Fails unless `condition`.
fn require(condition: bool, message: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { Err(DeviceError::Contract(message())) }
}
