use crate::Launch;
use crate::layout::Packed;
use crate::params::{GatherCheckParams, LinearParams};
use crate::variant::{Bits, Side, Tile, Variant};
use bytemuck::bytes_of;
use mlx_serving_device::ops::{Activation, Epilogue, Linear, Projection};
use mlx_serving_device::{Buffer, DeviceError, Result, WeightFormat, WeightSpec};

/// Most rows, half a tile, for the kernel through which the weights stream once for eight rows (four of a gate); more go
/// through tiles, which cost the same however few of their rows there are.
pub(crate) const FEW: usize = 32;

pub(crate) const HAS_NORM: u32 = 1;
const HAS_BIAS: u32 = 2;
const HAS_GATHER: u32 = 4;
const ADDS: u32 = 8;
const ROUNDS: u32 = 16;
pub(crate) const GELU: u32 = 32;

/// Makes the launches. All paths give a row the same bits: sums are taken in one order, or, rounded for matrix units, are exact in any.
pub(crate) fn lower(
    op: &Linear,
    matrix_side: Option<Side>,
    scratch: &mut dyn FnMut(u64) -> Result<Buffer>,
) -> Result<Vec<Launch>> {
    if let (Epilogue::Gated(..), [gate, up]) = (&op.epilogue, &op.projections[..]) {
        check_gated(&gate.weight.spec, &up.weight.spec)?;
    }
    // Sums of small floats over a chunk are no integers, or of two scales: no unit adds them in an order of ours.
    let quantized = |p: &Projection| matches!(p.weight.spec.format, WeightFormat::Affine { .. });
    let matrix_side = matrix_side.filter(|_| op.projections.iter().all(quantized));
    let rounds = matrix_side.is_some();
    let mut launches = Vec::new();
    if let Some(gather) = &op.gather {
        let input_rows = (op.input.len() / 4 / op.cols() as u64) as u32;
        launches.push(Launch {
            kernel: Variant::GatherCheck.kernel(),
            bindings: vec![gather.clone()],
            groups: [op.rows.div_ceil(64) as u32, 1, 1],
            work: op.rows as u64,
            params: bytes_of(&GatherCheckParams { rows: op.rows as u32, limit: input_rows, code: 3 }).into(),
        });
    }
    let prepared = if op.rows > FEW { Some(prepare(op, rounds, scratch, &mut launches)?) } else { None };
    let mut first = 0;
    let parts: Vec<&[Projection]> = match op.epilogue {
        Epilogue::Gated(..) => vec![&op.projections],
        _ => op.projections.chunks(1).collect(),
    };
    for part in parts {
        launches.push(match &prepared {
            Some(prepared) => many(op, part, first, matrix_side, prepared)?,
            None => few(op, part, first, rounds)?,
        });
        first += part[0].weight.spec.rows;
    }
    Ok(launches)
}

/// Fails unless one kernel multiplies both: it reads them in one layout.
pub(crate) fn check_gated(gate: &WeightSpec, up: &WeightSpec) -> Result<()> {
    if gate == up {
        return Ok(());
    }
    let (gate, up) = (gate.format, up.format);
    Err(DeviceError::Unsupported(format!(
        "a gate of {gate:?} beside {up:?}: GPUs need both in one format; quantize the two alike, or use --device cpu"
    )))
}

/// The rows with the norm's weight, the sums (and steps) of their chunks, and the norm's factors, for [`many`].
fn prepare(
    op: &Linear,
    rounds: bool,
    scratch: &mut dyn FnMut(u64) -> Result<Buffer>,
    launches: &mut Vec<Launch>,
) -> Result<Buffer> {
    let part = &op.projections[..1];
    let chunks = Packed::new(&part[0].weight.spec)?.chunks as u64;
    let rows = op.rows as u64;
    let words_of_chunk = if rounds { 16 + 2 } else { 32 + 1 };
    let prepared = scratch(4 * rows * (words_of_chunk * chunks + 1))?;
    launches.push(Launch {
        kernel: Variant::LinearRows.kernel(),
        bindings: vec![
            op.input.clone(),
            op.norm.as_ref().map_or_else(|| op.input.clone(), |norm| norm.weight.clone()),
            op.gather.clone().unwrap_or_else(|| op.input.clone()),
            prepared.clone(),
        ],
        groups: [rows.div_ceil(4) as u32, 1, 1],
        work: rows * chunks * 64,
        params: params(op, part, 0, rounds)?,
    });
    Ok(prepared)
}

fn few(op: &Linear, part: &[Projection], first: usize, rounds: bool) -> Result<Launch> {
    let gated = part.len() == 2;
    let tile = if op.rows == 1 { Tile::One } else { Tile::Most };
    let bits = Packed::new(&part[0].weight.spec)?.bits;
    let mut bindings = vec![
        op.input.clone(),
        op.norm.as_ref().map_or_else(|| op.input.clone(), |norm| norm.weight.clone()),
        op.gather.clone().unwrap_or_else(|| op.input.clone()),
        out(op).clone(),
    ];
    bindings.extend(part.iter().flat_map(|p| weight_and_bias(op, p)));
    let features = part[0].weight.spec.rows;
    Ok(Launch {
        kernel: Variant::LinearFew { bits, gated, tile }.kernel(),
        bindings,
        // Those that share weights side by side, so that a cache may hold them.
        groups: [(op.rows as u32).div_ceil(tile.rows(gated)), features.div_ceil(16) as u32, 1],
        work: work(op, part),
        params: params(op, part, first, rounds)?,
    })
}

fn many(
    op: &Linear,
    part: &[Projection],
    first: usize,
    matrix_side: Option<Side>,
    prepared: &Buffer,
) -> Result<Launch> {
    let gated = part.len() == 2;
    let variant = match (matrix_side, Packed::new(&part[0].weight.spec)?.bits) {
        (Some(side), Bits::Code(bits)) => Variant::LinearMatrix { bits, gated, side },
        (_, bits) => Variant::LinearMany { bits, gated },
    };
    let mut bindings = vec![prepared.clone(), out(op).clone()];
    bindings.extend(part.iter().flat_map(|p| weight_and_bias(op, p)));
    let features = part[0].weight.spec.rows;
    Ok(Launch {
        kernel: variant.kernel(),
        bindings,
        groups: [features.div_ceil(64) as u32, op.rows.div_ceil(64) as u32, 1],
        work: work(op, part),
        params: params(op, part, first, matrix_side.is_some())?,
    })
}

fn weight_and_bias(op: &Linear, projection: &Projection) -> [Buffer; 2] {
    [projection.weight.buffer.clone(), projection.bias.clone().unwrap_or_else(|| op.input.clone())]
}

fn out(op: &Linear) -> &Buffer {
    match &op.epilogue {
        Epilogue::Store(out) | Epilogue::Add(out) | Epilogue::Gated(_, out) => out,
    }
}

fn work(op: &Linear, part: &[Projection]) -> u64 {
    op.rows as u64 * part.iter().map(|p| (p.weight.spec.rows * p.weight.spec.cols) as u64).sum::<u64>()
}

fn params(op: &Linear, part: &[Projection], first: usize, rounds: bool) -> Result<Vec<u8>> {
    let spec = &part[0].weight.spec;
    let packed = Packed::new(spec)?;
    let stride = match op.epilogue {
        Epilogue::Gated(..) => spec.rows,
        _ => op.features(),
    };
    let flag = |flag, on: bool| if on { flag } else { 0 };
    let flags = flag(HAS_NORM, op.norm.is_some())
        | flag(HAS_BIAS, part.iter().any(|p| p.bias.is_some()))
        | flag(HAS_GATHER, op.gather.is_some())
        | flag(ADDS, matches!(op.epilogue, Epilogue::Add(_)))
        | flag(ROUNDS, rounds)
        | flag(GELU, matches!(op.epilogue, Epilogue::Gated(Activation::GeluTanh, _)));
    let params = LinearParams {
        rows: op.rows as u32,
        features: spec.rows as u32,
        cols: spec.cols as u32,
        chunks: packed.chunks,
        block_words: packed.block_words,
        group_shift: packed.group_shift,
        kind: packed.kind,
        out_stride: stride as u32,
        out_first: first as u32,
        flags,
        eps: op.norm.as_ref().map_or(0.0, |norm| norm.eps),
        slots: 1,
    };
    Ok(bytes_of(&params).into())
}
