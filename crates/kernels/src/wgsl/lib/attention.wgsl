// What the kernels of Attend share. Cache: [block][keys, values][kv head][token][padded head width], f{{ KV }}.
const INTERLEAVED: u32 = 1u;
const Q_NORM: u32 = 2u;
const K_NORM: u32 = 4u;
// Keys whose softmax is taken together; results of one stretch after the other are merged, whoever computed them.
const STRETCH: u32 = 128u;
// Stands for −∞: it is smaller than any score, and differences from it are finite or −∞ but never NaN.
const LOWEST: f32 = -3.0e38;

struct Params {
    head: Head,
    rows: u32,
    sequences: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    pairs: u32,
    block_tokens: u32,
    // Lengths of block tables and cache; no position is at or beyond max_context.
    table_len: u32,
    blocks: u32,
    max_context: u32,
    window: u32,
    flags: u32,
    scale: f32,
    q_eps: f32,
    k_eps: f32,
    // Rows of one sequence that a workgroup takes, query heads that it takes of a kv head's, stretches that are computed apart.
    tile_rows: u32,
    tile_heads: u32,
    splits: u32,
}
var<immediate> params: Params;

// A head's width in whole 16-byte pieces of f16.
fn padded() -> u32 {
    return (params.head_dim + 7u) & ~7u;
}

fn has(flag: u32) -> bool {
    return (params.flags & flag) != 0u;
}

// The two values that rotation turns together; beyond the rotated ones, two neighbors.
fn partners(i: u32) -> vec2<u32> {
    if (has(INTERLEAVED) || i >= params.pairs) {
        return vec2<u32>(2u * i, 2u * i + 1u);
    }
    return vec2<u32>(i, i + params.pairs);
}

fn rotated(x: vec2<f32>, turn: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(fma(x.x, turn.x, -(x.y * turn.y)), fma(x.y, turn.x, x.x * turn.y));
}
