use crate::Launch;
use crate::params::RopeAnglesParams;
use crate::variant::Variant;
use bytemuck::bytes_of;
use mlx_serving_device::ops::RopeAngles;

/// Makes the launch, or none where nothing is rotated.
pub(crate) fn lower(op: &RopeAngles) -> Vec<Launch> {
    if op.pairs == 0 || op.rows == 0 {
        return Vec::new();
    }
    let (beta, every) = op.growth.map_or((0.0, 1), |growth| (growth.beta, growth.every));
    vec![Launch {
        kernel: Variant::RopeAngles.kernel(),
        bindings: vec![op.positions.clone(), op.inv_freq.clone(), op.out.clone()],
        groups: [op.pairs.div_ceil(64) as u32, op.rows as u32, 1],
        work: (op.rows * op.pairs * 32) as u64,
        params: bytes_of(&RopeAnglesParams { pairs: op.pairs as u32, scale: op.scale, beta, every }).into(),
    }]
}
