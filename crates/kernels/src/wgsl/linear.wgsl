// What the three kernels of Linear share. The order of every sum, whatever the batch: for each of 32 partitions p of the columns, over
// its chunks p, p + 32, p + 64, …: in a chunk Σ q·u, column by column; per chunk scale·Σqu + bias·Σu; the chunks of a partition, and
// then the partitions, in rising order. u is the input times the norm's weight; the norm's factor is applied to the whole sum.
const HAS_NORM: u32 = 1u;
const HAS_BIAS: u32 = 2u;
const HAS_GATHER: u32 = 4u;
const ADDS: u32 = 8u;

struct Params {
    head: Head,
    rows: u32,
    // Of one projection.
    features: u32,
    cols: u32,
    chunks: u32,
    // Words of a block of the weight.
    block_words: u32,
    group_shift: u32,
    kind: u32,
    // A row of the output, and where the projection begins in it.
    out_stride: u32,
    out_first: u32,
    flags: u32,
    eps: f32,
}
var<immediate> params: Params;

fn has(flag: u32) -> bool {
    return (params.flags & flag) != 0u;
}

fn norm_factor(squares: f32) -> f32 {
    return inverseSqrt(squares / f32(params.cols) + params.eps);
}

fn silu(x: f32) -> f32 {
    return x / (1.0 + exact_exp(-x));
}
