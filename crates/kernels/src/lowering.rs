use crate::variant::Side;
use crate::{Launch, attend, copy, embed, experts, layout, linear, normalize, observe, rope, route, sample};
use mlx_serving_device::{Arithmetic, Buffer, KvSpec, Op, Result, WeightLayout, WeightSource, WeightSpec};
use std::ops::Range;

/// Turns ops into launches, and decides the layouts of weights and KV blocks.
#[derive(Debug, Clone)]
pub struct Lowering {
    arithmetic: Arithmetic,
    matrix_side: Option<Side>,
}

impl Lowering {
    /// Makes the lowering for a device in that mode of arithmetic. Its matrix units, if it has any, multiply f16 squares of that
    /// side, 8 or 16, into f32. Only fast arithmetic uses them: it rounds the inputs of quantized weights for them.
    pub fn new(arithmetic: Arithmetic, matrix_side: Option<u32>) -> Self {
        let matrix_side = match (arithmetic, matrix_side) {
            (Arithmetic::Fast, Some(8)) => Some(Side::S8),
            (Arithmetic::Fast, Some(16)) => Some(Side::S16),
            _ => None,
        };
        Self { arithmetic, matrix_side }
    }

    /// Side of the squares that the kernels multiply with matrix units, if they use any.
    pub fn matrix_side(&self) -> Option<u32> {
        self.matrix_side.map(|side| side as u32)
    }

    /// The launches of one op, to be run in order, each after the writes that it reads. The op is valid ([`Op::validate`]).
    ///
    /// `scratch` gives device memory for what lives until the op's last launch: every call gives memory of its own, and the next op
    /// may be given the same, since ops run in order.
    ///
    /// # Errors
    /// Errors of `scratch`, and shapes that the kernels do not have.
    pub fn lower(&self, op: &Op, scratch: &mut dyn FnMut(u64) -> Result<Buffer>) -> Result<Vec<Launch>> {
        match op {
            Op::Embed(op) => embed::lower(op),
            Op::RopeAngles(op) => Ok(rope::lower(op)),
            Op::Linear(op) => linear::lower(op, self.matrix_side, scratch),
            Op::Normalize(op) => Ok(normalize::lower(op)),
            Op::Route(op) => Ok(route::lower(op)),
            Op::Experts(op) => experts::lower(op, scratch),
            Op::Attend(op) => attend::lower(op, self.arithmetic, scratch),
            Op::Observe(op) => observe::lower(op),
            Op::Sample(op) => sample::lower(op, scratch),
            Op::Copy(op) => copy::lower(op),
        }
    }

    /// See [`mlx_serving_device::Device::weight_layout`].
    pub fn weight_layout(&self, spec: &WeightSpec) -> Result<WeightLayout> {
        layout::weight_layout(spec)
    }

    /// See [`mlx_serving_device::Device::pack_weight`].
    pub fn pack_weight(
        &self,
        spec: &WeightSpec,
        source: &WeightSource<'_>,
        blocks: Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        layout::pack(spec, source, blocks, out)
    }

    /// See [`mlx_serving_device::Device::check_gated`]: GPUs need both in one format.
    pub fn check_gated(&self, gate: &WeightSpec, up: &WeightSpec) -> Result<()> {
        linear::check_gated(gate, up)
    }

    /// See [`mlx_serving_device::Device::kv_block_bytes`]: f16 keys and values, f32 in exact arithmetic.
    pub fn kv_block_bytes(&self, spec: &KvSpec) -> usize {
        attend::kv_block_bytes(self.arithmetic, spec)
    }
}
