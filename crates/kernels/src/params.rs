//! Immediates as the kernels read them: the head of all, then a kernel's own, which are `Params` of its WGSL without the head. Names,
//! types and places are checked against naga's layout when the crate is compiled, by what the build script writes.

use bytemuck::{Pod, Zeroable};

/// Head of all immediates: `Head` in lib/prelude.wgsl, padded as WGSL pads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(crate) struct Head {
    pub(crate) base: [u8; 16],
    pub(crate) op: u32,
    pub(crate) padding: [u32; 3],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct CopyParams {
    pub(crate) skip_source: u32,
    pub(crate) skip_target: u32,
    pub(crate) length: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct RopeAnglesParams {
    pub(crate) pairs: u32,
    pub(crate) scale: f32,
    pub(crate) beta: f32,
    pub(crate) every: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct EmbedParams {
    pub(crate) cols: u32,
    pub(crate) chunks: u32,
    pub(crate) block_words: u32,
    pub(crate) group_shift: u32,
    pub(crate) kind: u32,
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) vocabulary: u32,
    pub(crate) sampled_count: u32,
    pub(crate) scale: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct GatherCheckParams {
    pub(crate) rows: u32,
    pub(crate) limit: u32,
    pub(crate) code: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct LinearParams {
    pub(crate) rows: u32,
    pub(crate) features: u32,
    pub(crate) cols: u32,
    pub(crate) chunks: u32,
    pub(crate) block_words: u32,
    pub(crate) group_shift: u32,
    pub(crate) kind: u32,
    pub(crate) out_stride: u32,
    pub(crate) out_first: u32,
    pub(crate) flags: u32,
    pub(crate) eps: f32,
    pub(crate) slots: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct RouteParams {
    pub(crate) experts: u32,
    pub(crate) slots: u32,
    pub(crate) renormalize: u32,
    pub(crate) factor: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct ExpertsSumParams {
    pub(crate) slots: u32,
    pub(crate) features: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct NormalizeParams {
    pub(crate) stride: u32,
    pub(crate) first: u32,
    pub(crate) width: u32,
    pub(crate) eps: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct AttendParams {
    pub(crate) rows: u32,
    pub(crate) sequences: u32,
    pub(crate) heads: u32,
    pub(crate) kv_heads: u32,
    pub(crate) head_dim: u32,
    pub(crate) pairs: u32,
    pub(crate) block_tokens: u32,
    pub(crate) table_len: u32,
    pub(crate) blocks: u32,
    pub(crate) max_context: u32,
    pub(crate) window: u32,
    pub(crate) flags: u32,
    pub(crate) scale: f32,
    pub(crate) q_eps: f32,
    pub(crate) k_eps: f32,
    pub(crate) tile_rows: u32,
    pub(crate) tile_heads: u32,
    pub(crate) splits: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct ObserveClearParams {
    pub(crate) vocab: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct ObserveMarkParams {
    pub(crate) vocab: u32,
    pub(crate) count: u32,
    pub(crate) prompt: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct SampleAdjustParams {
    pub(crate) vocab: u32,
    pub(crate) tiles: u32,
    pub(crate) history_rows: u32,
    pub(crate) biases: u32,
    pub(crate) mask_rows: u32,
    pub(crate) zero: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct SampleChooseParams {
    pub(crate) vocab: u32,
    pub(crate) tiles: u32,
}
