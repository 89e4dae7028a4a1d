{% include "lib/prelude.wgsl" %}
{% include "lib/math.wgsl" %}
// (cos, sin) of position · frequency, each times scale · (1 + beta · ln(1 + ⌊position / every⌋)): one invocation a pair.
struct Params {
    head: Head,
    pairs: u32,
    scale: f32,
    beta: f32,
    every: u32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> positions: array<u32>;
@group(0) @binding(1) var<storage, read> inv_freq: array<f32>;
@group(0) @binding(2) var<storage, read_write> angles: array<f32>;
@group(0) @binding(3) var<storage, read> fault: array<u32>;

// The high and low word of a product.
fn multiply(a: u32, b: u32) -> vec2<u32> {
    let al = a & 0xffffu;
    let ah = a >> 16u;
    let bl = b & 0xffffu;
    let bh = b >> 16u;
    let middle = ah * bl + ((al * bl) >> 16u);
    let other = al * bh + (middle & 0xffffu);
    return vec2<u32>(ah * bh + (middle >> 16u) + (other >> 16u), a * b);
}

// Bits 32·i … of 2/π, from the first after the point (Payne and Hanek 1983: only the bits that matter are multiplied).
fn two_over_pi(i: u32) -> u32 {
    switch i {
        case 0u: { return 0xa2f9836eu; }
        case 1u: { return 0x4e441529u; }
        case 2u: { return 0xfc2757d1u; }
        case 3u: { return 0xf534ddc0u; }
        case 4u: { return 0xdb629599u; }
        case 5u: { return 0x3c439041u; }
        default: { return 0xfe5163abu; }
    }
}

// Word of 2/π from bit `at` on; bits before the point are 0.
fn window(at: i32) -> u32 {
    if (at <= -32) {
        return 0u;
    }
    if (at < 0) {
        return two_over_pi(0u) >> u32(-at);
    }
    let word = u32(at) / 32u;
    let shift = u32(at) % 32u;
    var bits = two_over_pi(word) << shift;
    if (shift != 0u) {
        bits |= two_over_pi(word + 1u) >> (32u - shift);
    }
    return bits;
}

// (cos, sin) of x ≥ 0, below 2^40. The driver's own are good to 2^-11 only.
fn cos_sin(x: f32) -> vec2<f32> {
    let bits = bitcast<u32>(x);
    let exponent = i32(bits >> 23u) - 150;
    var quadrant = 0u;
    var r = x;
    // Below π/4 there is nothing to reduce.
    if (x > 0.785398) {
        // x = mantissa · 2^exponent; x · 2/π mod 4 as 2 + 62 bits: the bits of 2/π before 2^(2 - exponent) give multiples of 4.
        let mantissa = (bits & 0x7fffffu) | 0x800000u;
        let first = exponent - 2;
        let high = mantissa * window(first);
        let middle = multiply(mantissa, window(first + 32));
        let low = multiply(mantissa, window(first + 64));
        let carry_low = middle.y + low.x;
        let carry = select(0u, 1u, carry_low < middle.y);
        var top = high + middle.x + carry;
        var rest = carry_low;
        quadrant = top >> 30u;
        top = (top << 2u) | (rest >> 30u);
        rest = rest << 2u;
        // The fraction of a quadrant, rounded to nearest: from −1/2 to 1/2.
        var negative = false;
        if (top >= 0x80000000u) {
            quadrant += 1u;
            negative = true;
            rest = ~rest + 1u;
            top = ~top + select(0u, 1u, rest == 0u);
        }
        // Leading zeros are shifted out, so that small remainders keep their digits.
        var scale = 2.3283064365386963e-10;
        if (top == 0u) {
            top = rest;
            rest = 0u;
            scale *= 2.3283064365386963e-10;
        }
        let zeros = countLeadingZeros(top);
        if (zeros > 0u && zeros < 32u) {
            top = (top << zeros) | (rest >> (32u - zeros));
            scale *= bitcast<f32>((127u - zeros) << 23u);
        }
        r = f32(top) * scale * 1.5707963267948966;
        if (negative) {
            r = -r;
        }
    }
    let s = r * r;
    let sine = r + r * s * fma(s, fma(s, fma(s, 2.7557314e-6, -1.9841270e-4), 8.3333333e-3), -1.6666667e-1);
    let cosine = 1.0 + s * fma(s, fma(s, fma(s, fma(s, -2.7557319e-7, 2.4801587e-5), -1.3888889e-3), 4.1666667e-2), -0.5);
    switch quadrant & 3u {
        case 0u: { return vec2<f32>(cosine, sine); }
        case 1u: { return vec2<f32>(-sine, cosine); }
        case 2u: { return vec2<f32>(-cosine, -sine); }
        default: { return vec2<f32>(sine, -cosine); }
    }
}

@compute @workgroup_size(64)
fn rope_angles(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group.x * 64u + lane;
    if (fault[0] != 0u || i >= params.pairs) {
        return;
    }
    let position = positions[base(params.head, 0u) + group.y];
    let grown = params.scale * fma(params.beta, exact_ln(f32(1u + position / params.every)), 1.0);
    let turned = cos_sin(f32(position) * inv_freq[base(params.head, 1u) + i]) * grown;
    let at = base(params.head, 2u) + 2u * (group.y * params.pairs + i);
    angles[at] = turned.x;
    angles[at + 1u] = turned.y;
}
