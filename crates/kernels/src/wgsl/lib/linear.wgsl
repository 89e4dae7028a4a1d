// What the three kernels of Linear share. The order of every sum, whatever the batch: for each of 32 partitions p of the columns, over
// its chunks p, p + 32, p + 64, …: in a chunk Σ q·u, column by column; per chunk scale·Σqu + bias·Σu; the chunks of a partition, and
// then the partitions, in rising order. u is the input times the norm's weight; the norm's factor is applied to the whole sum.
//
// For matrix units the columns of a chunk are rounded to whole multiples of a step, at most 2048 of them, so that f16 holds them; then
// |Σ q·u| ≤ 255 · 2048 · 32 < 2²⁴: f32 holds every sum of a chunk exactly, in whatever order a unit adds, and a row's bits do not
// depend on which kernel computes them.
const HAS_NORM: u32 = 1u;
const HAS_BIAS: u32 = 2u;
const HAS_GATHER: u32 = 4u;
const ADDS: u32 = 8u;
const ROUNDS: u32 = 16u;
const GELU: u32 = 32u;

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
    // Of a row, where rows are those of experts.
    slots: u32,
}
var<immediate> params: Params;

fn has(flag: u32) -> bool {
    return (params.flags & flag) != 0u;
}

fn norm_factor(squares: f32) -> f32 {
    return inverseSqrt(squares / f32(params.cols) + params.eps);
}

// The largest magnitude in a chunk as bits, which order as magnitudes do, NaN above all.
fn highest_of(u: vec4<f32>) -> u32 {
    let bits = bitcast<vec4<u32>>(u) & vec4<u32>(0x7fffffffu);
    return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// The step's reciprocal and the step, a power of two: 2^(e − 10) for magnitudes below 2^(e + 1); chunks of none above 2^−116 are 0.
fn step_of(highest: u32) -> vec2<f32> {
    let exponent = max(highest >> 23u, 10u);
    return vec2<f32>(bitcast<f32>((264u - exponent) << 23u), bitcast<f32>((exponent - 10u) << 23u));
}

// x · sigmoid(x), or the tanh form of GELU, which is x · sigmoid(2 · √(2/π) · (x + 0.044715 · x³)): 0 or x beyond ±12.
fn activated(x: f32) -> f32 {
    var inner = x;
    if (has(GELU)) {
        let c = clamp(x, -12.0, 12.0);
        inner = c * fma(c * c, 0.0713548162726, 1.59576912161);
    }
    return x / (1.0 + exact_exp(-inner));
}
