//! A check that a plan fits a device, and how much more may be taken.

use super::plan::{Case, Plan};
use crate::failure::Failure;
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_device::{Device, DeviceInfo, Result, WeightSpec};
use mlx_serving_model::{BLOCK_TOKENS, row_parts};

/// Weights, and KV cache, that calls walk over, so that caches do not hold them.
const WALK: u64 = 512 << 20;
/// The longest staging buffer.
const STAGING: u64 = 64 << 20;

/// Bytes on one device.
pub(super) struct Sizes {
    /// A layer's weights.
    layer: u64,
    /// The longest weight that a gated op takes whole.
    gate: u64,
    head: u64,
    /// One layer's cache in the longest case.
    pub kv: u64,
    kv_block: u64,
    /// A row of logits.
    logit_row: u64,
    /// A row of the widest activation.
    wide_row: u64,
    /// Activations, logits and staging.
    others: u64,
}

impl Sizes {
    pub(super) fn of(plan: &Plan, device: &dyn Device) -> Result<Self> {
        let s = plan.shape;
        let (attended, qkv) = (s.heads * s.head_dim, plan.qkv_width());
        let weight = |rows, cols| weight_bytes(device, &plan.weight(rows, cols));
        let gate = weight(s.intermediate, s.hidden)?;
        let (vectors, outer) = (weight(s.heads * s.head_dim, s.hidden)?, weight(s.hidden, attended)?);
        let keys_and_values = 2 * weight(s.kv_heads * s.head_dim, s.hidden)?;
        let block = device.kv_block_bytes(&plan.kv()) as u64;
        let blocks = plan.cases.iter().map(|case: &Case| case.sequences * case.blocks_each()).max().unwrap_or(0);
        let floats = plan.max_rows() * (s.hidden + qkv + attended + s.intermediate + s.head_dim)
            + plan.max_logit_rows() * s.vocab;
        let staging = if device.info().unified_memory { 0 } else { STAGING };
        Ok(Self {
            layer: vectors + keys_and_values + outer + 2 * gate + weight(s.hidden, s.intermediate)?,
            gate,
            head: weight(s.vocab, s.hidden)?,
            kv: block * blocks as u64,
            kv_block: block,
            logit_row: 4 * s.vocab as u64,
            wide_row: 4 * s.intermediate.max(qkv).max(s.hidden) as u64,
            others: 4 * floats as u64 + staging,
        })
    }

    /// Checks what must lie in one buffer.
    pub(super) fn check_buffers(&self, plan: &Plan, info: &DeviceInfo) -> Result<(), Failure> {
        let (rows, logits) = (plan.max_rows() as u64, plan.max_logit_rows() as u64);
        let limit = info.max_buffer_len;
        for (what, bytes, fits) in [
            ("a gate's weight", self.gate, "choose fewer --bits".to_owned()),
            (
                "a layer's KV cache",
                self.kv,
                format!("{} tokens (sequences times --context) would fit", self.tokens(limit)),
            ),
            ("the logits", logits * self.logit_row, format!("{} sequences would fit", limit / self.logit_row)),
            ("an activation", rows * self.wide_row, format!("--rows {} would fit", limit / self.wide_row)),
        ] {
            if bytes > limit {
                return Err(Failure::failed(format!(
                    "{what} takes {bytes} bytes, but the longest buffer of {} has {limit} bytes; {fits}",
                    info.name
                )));
            }
        }
        Ok(())
    }

    /// Checks what must be there at a time.
    pub(super) fn check_budget(&self, shape: &Shape, info: &DeviceInfo) -> Result<(), Failure> {
        let Self { layer, head, kv, others, .. } = *self;
        let needed = layer + head + kv + others;
        if needed <= info.memory_budget {
            return Ok(());
        }
        let fits = match self.tokens(info.memory_budget.saturating_sub(needed - kv)) {
            0 => "choose a smaller --shape, fewer --bits or fewer --rows".to_owned(),
            tokens => format!("a cache of {tokens} tokens (sequences times --context) would fit"),
        };
        Err(Failure::failed(format!(
            "{} needs {needed} bytes ({layer} for a layer's weights, {head} for the head's, {kv} for a layer's KV cache, {others} for activations and staging), but {} has a budget of {}; {fits}",
            shape.name, info.name, info.memory_budget
        )))
    }

    /// Layers of weights, and buffers of KV cache, that calls walk over, for a model of so many layers.
    pub(super) fn walk(&self, model_layers: usize, budget: u64) -> (usize, usize) {
        let walk = |bytes: u64| WALK.div_ceil(bytes).min(model_layers as u64);
        let (mut layers, mut buffers) = (walk(self.layer), walk(self.kv));
        while self.head + self.others + layers * self.layer + buffers * self.kv > budget && layers.max(buffers) > 1 {
            if buffers == 1 || (layers > 1 && layers * self.layer > buffers * self.kv) {
                layers -= 1;
            } else {
                buffers -= 1;
            }
        }
        (layers as usize, buffers as usize)
    }

    /// Tokens of KV cache that so many bytes hold.
    fn tokens(&self, bytes: u64) -> u64 {
        bytes / self.kv_block * BLOCK_TOKENS as u64
    }
}

/// Bytes of a weight in the device's layout, all its parts.
fn weight_bytes(device: &dyn Device, whole: &WeightSpec) -> Result<u64> {
    row_parts(device, whole)?.into_iter().try_fold(0, |sum, part| {
        Ok(sum + device.weight_layout(&WeightSpec { rows: part.len(), ..*whole })?.bytes() as u64)
    })
}
