use crate::Launch;
use crate::params::NormalizeParams;
use crate::variant::Variant;
use bytemuck::bytes_of;
use mlx_serving_device::ops::Normalize;

/// Makes the launch.
pub(crate) fn lower(op: &Normalize) -> Vec<Launch> {
    let params =
        NormalizeParams { stride: op.stride as u32, first: op.first as u32, width: op.width as u32, eps: op.norm.eps };
    vec![Launch {
        kernel: Variant::Normalize { adds: op.target.is_some() }.kernel(),
        bindings: [&op.input, &op.norm.weight].into_iter().chain(&op.target).cloned().collect(),
        groups: [op.rows as u32, 1, 1],
        work: (2 * op.rows * op.width) as u64,
        params: bytes_of(&params).into(),
    }]
}
