//! A check that a plan fits a device, and how much more may be taken.

use crate::failure::Failure;
use mlx_serving_device::{Device, DeviceInfo, Result, WeightFormat, WeightSpec};
use mlx_serving_model::synth::Shape;
use mlx_serving_model::{BLOCK_TOKENS, Blueprint, Division, row_parts, working_set};

/// Weights, and KV cache, that calls walk over, so that caches do not hold them.
const WALK: u64 = 512 << 20;
/// The longest staging buffer.
const STAGING: u64 = 64 << 20;

/// The longest that the cases of a plan need of each kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// Format of the weights.
    pub format: WeightFormat,
    /// Rows of a step.
    pub rows: usize,
    /// Rows of a step whose logits are wanted: each sequence's last.
    pub logit_rows: usize,
    /// KV blocks of a step.
    pub blocks: usize,
}

/// Bytes on one device.
pub(super) struct Sizes {
    /// A layer's weights.
    layer: u64,
    /// The longest weight that an op takes whole: a gate's, or all experts'.
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
    /// Sizes for the widest layer and the longest case.
    pub(super) fn of(extent: &Extent, model: &Blueprint, device: &dyn Device) -> Result<Self> {
        let bytes = |rows, cols| weight_bytes(device, &WeightSpec { rows, cols, format: extent.format });
        let (mut layer, mut gate, mut wide) = (0, 0, model.hidden);
        for spec in &model.layers {
            let mut sum = 0;
            for linear in spec.linears(model.hidden) {
                sum += bytes(linear.rows, linear.cols)?;
                gate = gate.max(match linear.division {
                    Division::Anywhere => 0,
                    Division::Nowhere => bytes(linear.rows, linear.cols)?,
                    Division::Halves => bytes(linear.rows / 2, linear.cols)?,
                });
            }
            for stack in spec.stacks(model.hidden) {
                let bytes = bytes(stack.count * stack.rows, stack.cols)?;
                (sum, gate) = (sum + bytes, gate.max(bytes));
            }
            let experts = spec.experts.as_ref().map_or(0, |experts| experts.slots * experts.width);
            layer = layer.max(sum);
            wide = wide
                .max(spec.mlp.width)
                .max(experts)
                .max((spec.mixer.heads + 2 * spec.mixer.kv_heads) * spec.mixer.head_dim);
        }
        let set = working_set(model, device, 1, extent.rows, extent.logit_rows);
        let staging = if device.info().unified_memory { 0 } else { STAGING };
        Ok(Self {
            layer,
            gate,
            head: bytes(model.vocab, model.hidden)?,
            kv: set.kv_layer_bytes * extent.blocks as u64,
            kv_block: set.kv_layer_bytes,
            logit_row: 4 * model.vocab as u64,
            wide_row: 4 * wide as u64,
            others: set.others.iter().map(|(bytes, _)| bytes).sum::<u64>() + staging,
        })
    }

    /// Checks what must lie in one buffer.
    pub(super) fn check_buffers(&self, extent: &Extent, info: &DeviceInfo) -> Result<(), Failure> {
        let (rows, logits) = (extent.rows as u64, extent.logit_rows as u64);
        let limit = info.max_buffer_len;
        for (what, bytes, fits) in [
            ("a gate's weight, or all experts', ", self.gate, "choose fewer --bits".to_owned()),
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

    /// Layers, and caches of the longest case in each, that calls walk over, for a model of so many layers.
    pub(super) fn walk(&self, model_layers: usize, info: &DeviceInfo) -> (usize, usize) {
        let walk = |bytes: u64| WALK.div_ceil(bytes).min(model_layers as u64);
        let mut layers = walk(self.layer);
        let mut copies = walk(self.kv).div_ceil(layers).min(info.max_buffer_len / self.kv).max(1);
        while self.head + self.others + layers * (self.layer + copies * self.kv) > info.memory_budget
            && layers.max(copies) > 1
        {
            if copies == 1 || (layers > 1 && self.layer > copies * self.kv) {
                layers -= 1;
            } else {
                copies -= 1;
            }
        }
        (layers as usize, copies as usize)
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
