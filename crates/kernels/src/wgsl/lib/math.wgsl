// Exponential and logarithm from additions and multiplications alone, so that their error does not depend on the driver: below
// 2 ulp, whether or not a product and a sum are fused; sums must not be reordered (on Metal: no fast math). tests/math.rs reads the
// constants below and measures.

// ln 2 in two parts; multiples of the upper one by an exponent are exact.
const LN_2_HIGH: f32 = 0.693359375;
const LN_2_LOW: f32 = -0.000212194442;
const LOG2_E: f32 = 1.44269502;

// (exp(r) − 1 − r) / r², |r| ≤ ln 2 / 2; minimax.
const EXP_0: f32 = 0.5;
const EXP_1: f32 = 0.166665182;
const EXP_2: f32 = 0.0416662022;
const EXP_3: f32 = 0.00836902484;
const EXP_4: f32 = 0.00139507104;

// (ln(1 + f) − f + f² / 2) / f³, √½ ≤ 1 + f ≤ √2; minimax.
const LN_0: f32 = 0.333333164;
const LN_1: f32 = -0.250008106;
const LN_2: f32 = 0.200022861;
const LN_3: f32 = -0.16624558;
const LN_4: f32 = 0.141811803;
const LN_5: f32 = -0.131287098;
const LN_6: f32 = 0.12881726;
const LN_7: f32 = -0.0785984248;

// 2ⁿ, −126 ≤ n ≤ 127.
fn power_of_two(n: i32) -> f32 {
    return bitcast<f32>(u32(n + 127) << 23u);
}

// eˣ; infinite and 0 where f32 ends. NaN gives any value. Nothing is left for the compiler to fuse, so that every kernel has the same
// bits.
fn exact_exp(x: f32) -> f32 {
    let within = clamp(x, -104.0, 89.0);
    let n = floor(fma(within, LOG2_E, 0.5));
    let r = fma(-n, LN_2_LOW, fma(-n, LN_2_HIGH, within));
    let tail = fma(fma(fma(fma(EXP_4, r, EXP_3), r, EXP_2), r, EXP_1), r, EXP_0);
    // In two steps, since n may be one too large for an exponent.
    let half = i32(n) / 2;
    return (1.0 + fma(r * r, tail, r)) * power_of_two(half) * power_of_two(i32(n) - half);
}

// ln x for positive, normal, finite x.
fn exact_ln(x: f32) -> f32 {
    // The bits of √½ less one step begin a new exponent, so that 1 + f lies around 1.
    let shifted = bitcast<u32>(x) - 0x3f3504f3u;
    let n = f32(bitcast<i32>(shifted) >> 23u);
    let f = bitcast<f32>((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0;
    let tail = ((((((LN_7 * f + LN_6) * f + LN_5) * f + LN_4) * f + LN_3) * f + LN_2) * f + LN_1) * f + LN_0;
    let square = f * f;
    return n * LN_2_HIGH + (f - (0.5 * square - (f * square * tail + n * LN_2_LOW)));
}
