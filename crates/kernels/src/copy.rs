use crate::Launch;
use crate::params::CopyParams;
use crate::variant::Variant;
use bytemuck::bytes_of;
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{DeviceError, Result};

/// Invocations of the kernel's workgroup, each of which writes words in strides of the whole grid.
const LANES: u64 = 256;
const MAX_GROUPS: u64 = 4096;

pub(crate) fn lower(op: &Copy) -> Result<Vec<Launch>> {
    if op.to.is_empty() {
        return Ok(Vec::new());
    }
    let length = u32::try_from(op.to.len())
        .map_err(|_| DeviceError::Unsupported(format!("a copy of {} bytes in one piece", op.to.len())))?;
    let params =
        CopyParams { skip_source: (op.from.offset() % 4) as u32, skip_target: (op.to.offset() % 4) as u32, length };
    let words = op.to.len().div_ceil(4) + 1;
    Ok(vec![Launch {
        kernel: Variant::Copy.kernel(),
        bindings: vec![op.from.clone(), op.to.clone()],
        groups: [words.div_ceil(LANES).min(MAX_GROUPS) as u32, 1, 1],
        work: words,
        params: bytes_of(&params).into(),
    }])
}
