use crate::Launch;
use crate::params::RouteParams;
use crate::variant::Variant;
use bytemuck::bytes_of;
use mlx_serving_device::ops::{Route, Scoring};

/// Makes the launch.
pub(crate) fn lower(op: &Route) -> Vec<Launch> {
    let bias = if let Scoring::Sigmoid { bias } = &op.scoring { Some(bias) } else { None };
    let params = RouteParams {
        experts: op.experts as u32,
        slots: op.slots as u32,
        renormalize: op.renormalize.into(),
        factor: op.factor,
    };
    vec![Launch {
        kernel: Variant::Route { sigmoid: bias.is_some() }.kernel(),
        // Nobody reads what is bound where there is no bias.
        bindings: [&op.logits, bias.unwrap_or(&op.logits), &op.chosen, &op.weights].map(Clone::clone).into(),
        groups: [op.rows as u32, 1, 1],
        work: (op.rows * op.experts * (op.slots + 2)) as u64,
        params: bytes_of(&params).into(),
    }]
}
