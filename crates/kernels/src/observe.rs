use crate::Launch;
use crate::params::{ObserveClearParams, ObserveMarkParams};
use crate::variant::Variant;
use bytemuck::bytes_of;
use mlx_serving_device::ops::Observe;
use mlx_serving_device::{DeviceError, Result};

/// Invocations of the kernels' workgroups.
const LANES: usize = 256;
const MAX_GROUPS: usize = 4096;

/// Zeros for the row, then marks and counts.
pub(crate) fn lower(op: &Observe) -> Result<Vec<Launch>> {
    let first = 4 * (op.history_row * op.vocab) as u64;
    let row = op.history.slice(first..first + 4 * op.vocab as u64)?;
    let word = |value: usize| {
        u32::try_from(value)
            .map_err(|_| DeviceError::Unsupported(format!("observe: {value} tokens or entries at once")))
    };
    let (vocab, count, prompt) = (word(op.vocab)?, word(op.count)?, word(op.prompt)?);
    let clear = Launch {
        kernel: Variant::ObserveClear.kernel(),
        bindings: vec![row.clone()],
        groups: groups(op.vocab),
        work: op.vocab as u64,
        params: bytes_of(&ObserveClearParams { vocab }).into(),
    };
    let mark = Launch {
        kernel: Variant::ObserveMark.kernel(),
        bindings: vec![row, op.tokens.clone()],
        groups: groups(op.count),
        work: op.count as u64,
        params: bytes_of(&ObserveMarkParams { vocab, count, prompt }).into(),
    };
    Ok([clear, mark].into_iter().filter(|launch| launch.work > 0).collect())
}

fn groups(items: usize) -> [u32; 3] {
    [items.div_ceil(LANES).min(MAX_GROUPS) as u32, 1, 1]
}
