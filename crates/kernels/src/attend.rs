use crate::Launch;
use crate::params::AttendParams;
use crate::variant::{Items, Kv, Queries, Variant};
use bytemuck::bytes_of;
use mlx_serving_device::ops::{Attend, Norm};
use mlx_serving_device::{Arithmetic, Buffer, DeviceError, KvSpec, Result};

/// Keys of a stretch, as in lib/attention.wgsl.
const STRETCH: usize = 128;
/// Results of stretches that are computed apart take no more memory than this, bytes.
const MOST_APART: usize = 64 << 20;
/// A launch of fewer workgroups than this leaves most of a GPU idle: stretches are then computed apart.
const ENOUGH_GROUPS: usize = 256;
/// Widest head of the kernels.
const MAX_DIM: usize = 256;

const INTERLEAVED: u32 = 1;
const Q_NORM: u32 = 2;
const K_NORM: u32 = 4;

/// Bytes of one block: heads are padded to whole 16-byte pieces of f16.
pub(crate) fn kv_block_bytes(arithmetic: Arithmetic, spec: &KvSpec) -> usize {
    2 * spec.heads * spec.block_tokens * padded(spec.head_dim) * kv(arithmetic) as usize / 8
}

fn padded(dim: usize) -> usize {
    dim.next_multiple_of(8)
}

fn kv(arithmetic: Arithmetic) -> Kv {
    match arithmetic {
        Arithmetic::Fast => Kv::F16,
        Arithmetic::Exact => Kv::F32,
    }
}

/// Division of a batch's queries into workgroups.
struct Tiles {
    queries: Queries,
    items: Items,
    /// Rows of a sequence, and heads of a group.
    rows: usize,
    heads: usize,
}

impl Tiles {
    fn new(op: &Attend) -> Self {
        let (group, eights) = (op.heads / op.kv.heads, padded(op.kv.head_dim) / 8);
        let decoding = op.batch.rows == op.batch.sequences;
        let (queries, items) = match (decoding && group <= 8, eights) {
            (true, ..=16) => (Queries::Q8, Items::I1),
            (_, 17..) => (Queries::Q8, Items::I2),
            (false, ..=8) => (Queries::Q16, Items::I1),
            (false, _) => (Queries::Q16, Items::I2),
        };
        let heads = group.min(queries as usize);
        let rows = if decoding { 1 } else { queries as usize / heads };
        Self { queries, items, rows, heads }
    }
}

/// Writes keys and values, then attends; stretches of long contexts apart where rows alone do not fill a GPU.
pub(crate) fn lower(
    op: &Attend,
    arithmetic: Arithmetic,
    scratch: &mut dyn FnMut(u64) -> Result<Buffer>,
) -> Result<Vec<Launch>> {
    let (rows, dim) = (op.batch.rows, op.kv.head_dim);
    if dim > MAX_DIM || !dim.is_multiple_of(2) {
        return Err(DeviceError::Unsupported(format!("heads {dim} wide; even widths up to {MAX_DIM} are")));
    }
    let tiles = Tiles::new(op);
    let row_tiles =
        if op.batch.rows == op.batch.sequences { rows } else { (rows / tiles.rows + op.batch.sequences).min(rows) };
    let groups = row_tiles * op.kv.heads * (op.heads / op.kv.heads).div_ceil(tiles.heads);
    let stretches = op.batch.max_context.div_ceil(STRETCH);
    let apart = 4 * rows * op.heads * stretches * (padded(dim) + 2);
    let splits = if groups < ENOUGH_GROUPS && apart <= MOST_APART { stretches } else { 1 };
    let params = params(op, arithmetic, &tiles, splits);
    let params = bytes_of(&params);
    let kv = kv(arithmetic);
    let norm = |norm: &Option<Norm>| norm.as_ref().map_or_else(|| op.qkv.clone(), |norm| norm.weight.clone());
    let batch = [op.batch.spans.clone(), op.batch.block_tables.clone(), op.cache.clone()];
    let angles = |angles: &Buffer| if op.pairs == 0 { op.qkv.clone() } else { angles.clone() };
    let write = Launch {
        kernel: Variant::AttendWrite { kv }.kernel(),
        bindings: [vec![op.qkv.clone(), angles(&op.key_angles), norm(&op.k_norm)], batch.to_vec()].concat(),
        groups: [rows as u32, op.kv.heads as u32, 1],
        work: (rows * op.kv.heads * dim) as u64,
        params: params.into(),
    };
    let result = if splits > 1 { scratch(apart as u64)? } else { op.out.clone() };
    let seen = op.window.map_or(op.batch.max_context, |window| window.min(op.batch.max_context));
    let attend = Launch {
        kernel: Variant::Attend { kv, queries: tiles.queries, items: tiles.items }.kernel(),
        bindings: [
            vec![op.qkv.clone(), angles(&op.query_angles), norm(&op.q_norm)],
            batch.to_vec(),
            vec![result.clone()],
        ]
        .concat(),
        groups: [row_tiles as u32, (groups / row_tiles) as u32, splits as u32],
        work: (2 * rows * op.heads * dim * seen) as u64,
        params: params.into(),
    };
    let mut launches = vec![write, attend];
    if splits > 1 {
        launches.push(Launch {
            kernel: Variant::AttendMerge.kernel(),
            bindings: vec![result, op.out.clone()],
            groups: [rows as u32, op.heads as u32, 1],
            work: (rows * op.heads * dim * splits) as u64,
            params: params.into(),
        });
    }
    Ok(launches)
}

fn params(op: &Attend, arithmetic: Arithmetic, tiles: &Tiles, splits: usize) -> AttendParams {
    let flag = |flag, on: bool| if on { flag } else { 0 };
    let eps = |norm: &Option<Norm>| norm.as_ref().map_or(0.0, |norm| norm.eps);
    let blocks = op.cache.len() as usize / kv_block_bytes(arithmetic, &op.kv);
    AttendParams {
        rows: op.batch.rows as u32,
        sequences: op.batch.sequences as u32,
        heads: op.heads as u32,
        kv_heads: op.kv.heads as u32,
        head_dim: op.kv.head_dim as u32,
        pairs: op.pairs as u32,
        block_tokens: op.kv.block_tokens as u32,
        table_len: (op.batch.block_tables.len() / 4) as u32,
        blocks: blocks as u32,
        max_context: op.batch.max_context as u32,
        window: op.window.map_or(u32::MAX, |window| window.min(u32::MAX as usize) as u32),
        flags: flag(INTERLEAVED, op.interleaved)
            | flag(Q_NORM, op.q_norm.is_some())
            | flag(K_NORM, op.k_norm.is_some()),
        scale: op.scale,
        q_eps: eps(&op.q_norm),
        k_eps: eps(&op.k_norm),
        tile_rows: tiles.rows as u32,
        tile_heads: tiles.heads as u32,
        splits: splits as u32,
    }
}
