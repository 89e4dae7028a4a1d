use crate::Launch;
use crate::params::{SampleAdjustParams, SampleChooseParams};
use crate::variant::Variant;
use bytemuck::bytes_of;
use mlx_serving_device::ops::{LogitBias, Sample};
use mlx_serving_device::{Buffer, DeviceError, Result};

/// Tokens that one workgroup of the first kernel takes.
const TILE: usize = 2048;
/// The second kernel's sums of probability fit 64 bits below this.
const MAX_VOCAB: usize = 1 << 20;
/// Workgroups in the second direction that every device has.
const MAX_ROWS: usize = 65_535;

/// `sample_adjust` on every tile, then `sample_choose` on every row.
///
/// The logits are read once, and a row without filters is then decided but for its tiles' bests. Of a filtered row a copy is
/// written, and read once for the draw; before it, top-k or top-p reads two to eight times (typically three, and then only tiles
/// that still matter) to find where they cut.
pub(crate) fn lower(op: &Sample, scratch: &mut dyn FnMut(u64) -> Result<Buffer>) -> Result<Vec<Launch>> {
    let tiles = op.vocab.div_ceil(TILE);
    if op.vocab >= MAX_VOCAB || op.rows > MAX_ROWS || op.rows * tiles * TILE > u32::MAX as usize {
        return Err(DeviceError::Unsupported(format!("sample: {} rows of {} logits at once", op.rows, op.vocab)));
    }
    let keys = scratch((4 * op.rows * tiles * TILE) as u64)?;
    let bests = scratch((8 * op.rows * tiles) as u64)?;
    let (vocab, tiles, rows) = (op.vocab as u32, tiles as u32, op.rows as u32);
    let history_rows = op.history.as_ref().map_or(0, |history| history.len() / 4).min(u32::MAX.into()) as u32 / vocab;
    let mask_bytes = 4 * Sample::mask_words(op.vocab) as u64;
    let mask_rows = op.masks.as_ref().map_or(0, |masks| masks.len() / mask_bytes).min(u32::MAX.into()) as u32;
    let biases = (op.biases.len() / size_of::<LogitBias>() as u64).min(u32::MAX.into()) as u32;
    // Without a history no row may have a row there, and the binding is not touched.
    let (read, written) = op.history.as_ref().map_or((&op.params, &op.out), |history| (history, history));
    let work = 16 * u64::from(rows) * u64::from(vocab);
    Ok(vec![
        Launch {
            kernel: Variant::SampleAdjust.kernel(),
            bindings: vec![
                op.params.clone(),
                op.logits.clone(),
                // Nobody reads what is bound where there are none.
                if biases == 0 { op.params.clone() } else { op.biases.clone() },
                read.clone(),
                op.masks.as_ref().unwrap_or(&op.params).clone(),
                keys.clone(),
                bests.clone(),
            ],
            groups: [tiles, rows, 1],
            work,
            params: bytes_of(&SampleAdjustParams { vocab, tiles, history_rows, biases, mask_rows, zero: 0 }).into(),
        },
        Launch {
            kernel: Variant::SampleChoose.kernel(),
            bindings: vec![op.params.clone(), keys, bests, written.clone(), op.out.clone()],
            groups: [rows, 1, 1],
            work,
            params: bytes_of(&SampleChooseParams { vocab, tiles }).into(),
        },
    ])
}
