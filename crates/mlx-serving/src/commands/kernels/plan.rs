//! What is to be measured, and the device memory that it takes.

use crate::failure::Failure;
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_device::{Device, Float, KvSpec, Result, WeightFormat, WeightSpec};
use mlx_serving_model::{BLOCK_TOKENS, row_parts};

/// From so many rows on, a step is one sequence's chunk of a prompt; below, every row is a sequence that decodes.
const PREFILL_ROWS: usize = 128;
/// Weights and KV cache that calls walk over, bytes, so that caches do not hold them.
const WALK: u64 = 512 << 20;
/// The longest staging buffer, bytes.
const STAGING: u64 = 64 << 20;

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    pub rows: usize,
    pub sequences: usize,
    /// Tokens of every sequence at the step's end.
    pub context: usize,
}

impl Case {
    pub(super) fn new(rows: usize, context: usize) -> Self {
        let sequences = if rows < PREFILL_ROWS { rows } else { 1 };
        Self { rows, sequences, context: context.max(rows / sequences) }
    }

    /// Rows of every sequence.
    pub(super) fn rows_each(&self) -> usize {
        self.rows / self.sequences
    }

    /// Tokens of every sequence before the step.
    pub(super) fn start(&self) -> usize {
        self.context - self.rows_each()
    }

    /// KV blocks of every sequence.
    pub(super) fn blocks_each(&self) -> usize {
        self.context.div_ceil(BLOCK_TOKENS)
    }

    pub(super) fn is_prefill(&self) -> bool {
        self.sequences < self.rows
    }
}

/// What is measured.
#[derive(Debug)]
pub(super) struct Plan {
    pub shape: &'static Shape,
    pub bits: u8,
    pub group_size: u16,
    pub cases: Vec<Case>,
    /// Layers whose weights there are.
    pub layers: usize,
    /// Buffers of KV cache, each for the longest case.
    pub kv_buffers: usize,
    pub kv_buffer_bytes: u64,
}

impl Plan {
    /// The cases of all rows at all contexts.
    ///
    /// # Errors
    /// What does not fit the device, with the numbers and what would fit.
    pub(super) fn new(
        shape: &'static Shape,
        (bits, group_size): (u8, u16),
        rows: &[usize],
        contexts: &[usize],
        device: &dyn Device,
    ) -> Result<Self, Failure> {
        let mut cases: Vec<Case> = Vec::new();
        for case in rows.iter().flat_map(|&rows| contexts.iter().map(move |&context| Case::new(rows, context))) {
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
        let mut plan = Self { shape, bits, group_size, cases, layers: 1, kv_buffers: 1, kv_buffer_bytes: 0 };
        plan.fit(device)?;
        Ok(plan)
    }

    /// Shape of a layer's cache.
    pub(super) fn kv(&self) -> KvSpec {
        KvSpec { heads: self.shape.kv_heads, head_dim: self.shape.head_dim, block_tokens: BLOCK_TOKENS }
    }

    /// A weight of the model.
    pub(super) fn weight(&self, rows: usize, cols: usize) -> WeightSpec {
        let format = WeightFormat::Affine { bits: self.bits, group: self.group_size, scale: Float::Bf16 };
        WeightSpec { rows, cols, format }
    }

    /// Values of a row of queries, keys and values.
    pub(super) fn qkv_width(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) * self.shape.head_dim
    }

    /// The most rows of a step.
    pub(super) fn max_rows(&self) -> usize {
        self.cases.iter().map(|case| case.rows).max().unwrap_or(0)
    }

    /// The most rows of a step whose logits are wanted: each sequence's last.
    pub(super) fn max_logit_rows(&self) -> usize {
        self.cases.iter().map(|case| case.sequences).max().unwrap_or(0)
    }

    /// Decides how much memory calls walk over, within the device's budget.
    fn fit(&mut self, device: &dyn Device) -> Result<(), Failure> {
        let info = device.info();
        let s = self.shape;
        let bytes = |rows, cols| self.weight_bytes(device, rows, cols).map_err(Failure::failed);
        let gate = bytes(s.intermediate, s.hidden)?;
        let width = s.heads * s.head_dim;
        let layer =
            bytes(self.qkv_width(), s.hidden)? + bytes(s.hidden, width)? + 2 * gate + bytes(s.hidden, s.intermediate)?;
        let head = bytes(s.vocab, s.hidden)?;
        let block = device.kv_block_bytes(&self.kv()) as u64;
        let blocks = self.cases.iter().map(|case| case.sequences * case.blocks_each()).max().unwrap_or(0);
        let kv = block * blocks as u64;
        let floats = self.max_rows() * (s.hidden + self.qkv_width() + width + s.intermediate + s.head_dim)
            + self.max_logit_rows() * s.vocab;
        let others = 4 * floats as u64 + if info.unified_memory { 0 } else { STAGING };
        let tokens = |room: u64| room / block * BLOCK_TOKENS as u64;
        if gate > info.max_buffer_len {
            return Err(Failure::failed(format!(
                "a gate of {} takes {gate} bytes with {} bits, but the longest buffer of {} has {}; choose fewer --bits",
                s.name, self.bits, info.name, info.max_buffer_len
            )));
        }
        let logits = 4 * (self.max_logit_rows() * s.vocab) as u64;
        if kv.max(logits) > info.max_buffer_len {
            return Err(Failure::failed(format!(
                "a layer's KV cache takes {kv} bytes and the logits {logits}, but the longest buffer of {} has {}; a cache of {} tokens (--rows times --context) and {} rows of logits would fit",
                info.name,
                info.max_buffer_len,
                tokens(info.max_buffer_len),
                info.max_buffer_len / (4 * s.vocab as u64)
            )));
        }
        let fixed = head + others;
        let needed = fixed + layer + kv;
        if needed > info.memory_budget {
            let room = info.memory_budget.saturating_sub(fixed + layer);
            let fits = match tokens(room) {
                0 => "choose a smaller --shape, fewer --bits or fewer --rows".to_owned(),
                tokens => format!("a cache of {tokens} tokens (--rows times --context) would fit"),
            };
            return Err(Failure::failed(format!(
                "{} needs {needed} bytes (a layer's weights {layer}, the head's {head}, a layer's KV cache {kv}, activations and staging {others}), but {} has a budget of {}; {fits}",
                s.name, info.name, info.memory_budget
            )));
        }
        let walk = |bytes: u64| WALK.div_ceil(bytes.max(1)).min(s.layers as u64);
        let (mut layers, mut buffers) = (walk(layer), walk(kv));
        while fixed + layers * layer + buffers * kv > info.memory_budget {
            // Neither is 1 and both together too much: that was refused.
            if buffers == 1 || (layers > 1 && layers * layer > buffers * kv) { layers -= 1 } else { buffers -= 1 }
        }
        (self.layers, self.kv_buffers, self.kv_buffer_bytes) = (layers as usize, buffers as usize, kv);
        Ok(())
    }

    /// Bytes of a weight in the device's layout, all its parts.
    fn weight_bytes(&self, device: &dyn Device, rows: usize, cols: usize) -> Result<u64> {
        let whole = self.weight(rows, cols);
        row_parts(device, &whole)?.into_iter().try_fold(0, |sum, part| {
            Ok(sum + device.weight_layout(&WeightSpec { rows: part.len(), ..whole })?.bytes() as u64)
        })
    }
}
