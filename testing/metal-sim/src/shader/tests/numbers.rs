//! Arithmetic: the host's, bit for bit.

use super::{Bench, noise};

/// `expression` of x, y and z for every triple, with a, b, c their vectors.
fn map(expression: &str, triples: &[f32]) -> Vec<f32> {
    let wgsl = format!(
        "enable f16;
        @group(0) @binding(0) var<storage, read> v: array<f32>;
        @group(0) @binding(1) var<storage, read_write> r: array<f32>;
        @compute @workgroup_size(1)
        fn main_(@builtin(global_invocation_id) at: vec3<u32>) {{
            let x = v[at.x * 3u]; let y = v[at.x * 3u + 1u]; let z = v[at.x * 3u + 2u];
            let a = vec4<f32>(x, y, z, x + y); let b = a.wzyx; let c = vec3<f32>(z, x, y);
            r[at.x] = {expression};
        }}"
    );
    let n = triples.len() / 3;
    Bench::new(&wgsl).threads(1).groups(n as u32).bind_f32(0, triples).bind_f32(1, &vec![0.0; n]).floats(1)
}

fn same(expression: &str, host: impl Fn(f32, f32, f32) -> f32) {
    let mut triples = noise(300, 11);
    triples.iter_mut().step_by(7).for_each(|v| *v *= 30.0);
    for (t, r) in triples.chunks(3).zip(map(expression, &triples)) {
        let expected = host(t[0], t[1], t[2]);
        assert!(
            r.to_bits() == expected.to_bits() || r.is_nan() && expected.is_nan(),
            "{expression} of {t:?}: {r}, {expected}"
        );
    }
}

#[test]
fn constants_are_single_and_operations_are_rounded_one_by_one() {
    same("x * 0.1", |x, _, _| x * 0.1);
    same("x * y + z", |x, y, z| x * y + z);
    same("x / y - z * 0.3", |x, y, z| x / y - z * 0.3);
    same("fma(x, y, z)", f32::mul_add);
    same("fma(a, b, a).y", |_, y, z| y.mul_add(z, y));
    same("(a * b + a).z", |_, y, z| z * y + z);
    same("dot(a, b)", |x, y, z| {
        let w = x + y;
        x * w + y * z + z * y + w * x
    });
}

#[test]
fn functions_are_libms() {
    same("exp(x)", |x, _, _| x.exp());
    same("exp2(x) + log(abs(y))", |x, y, _| x.exp2() + y.abs().ln());
    same("sqrt(abs(x)) * inverseSqrt(abs(y))", |x, y, _| x.abs().sqrt() * (1.0 / y.abs().sqrt()));
    same("tanh(x) + sin(y) * cos(z)", |x, y, z| x.tanh() + y.sin() * z.cos());
    same("pow(abs(x), y)", |x, y, _| x.abs().powf(y));
    same("round(x) + floor(y) + ceil(z) + trunc(x) + sign(y)", |x, y, z| {
        x.round_ties_even() + y.floor() + z.ceil() + x.trunc() + y.signum()
    });
    same("max(x, y) - min(y, z) + clamp(z, -0.5, 0.25)", |x, y, z| x.max(y) - y.min(z) + z.clamp(-0.5, 0.25));
    same("mix(x, y, z) + step(x, y) + saturate(z)", |x, y, z| {
        x + (y - x) * z + if y < x { 0.0 } else { 1.0 } + z.clamp(0.0, 1.0)
    });
    same("length(c)", |x, y, z| (z * z + x * x + y * y).sqrt());
    same("cross(c, a.xyz).x", |x, y, z| x * z - y * y);
    same("fract(abs(x)) + x % y", |x, y, _| (x.abs() - x.abs().floor()) + x % y);
    same("modf(x).fract + frexp(y).fract", |x, y, _| {
        let (mut fraction, exponent) = (y, if y == 0.0 { 0 } else { y.abs().log2().floor() as i32 + 1 });
        fraction /= 2f32.powi(exponent);
        (x - x.trunc()) + fraction
    });
}

#[test]
fn precise_and_fast_are_libms_too() {
    let msl = "#include <metal_stdlib>\nkernel void main_(device float* y [[buffer(0)]]) {\n\
        y[0] = metal::precise::exp(y[0]); y[1] = metal::fast::rsqrt(y[1]); y[2] = metal::precise::divide(y[2], 3.0); }";
    let y = Bench::of_msl(msl, "main_").threads(1).bind_f32(0, &[0.7, 0.3, 0.2]).floats(0);
    assert_eq!(y, [0.7f32.exp(), 1.0 / 0.3f32.sqrt(), 0.2 / 3.0]);
}

#[test]
fn bits_are_moved_and_selected() {
    same("bitcast<f32>(bitcast<u32>(x) ^ 0x80000000u)", |x, _, _| -x);
    same("f32(countOneBits(bitcast<u32>(x)) + countLeadingZeros(bitcast<u32>(y)))", |x, y, _| {
        (x.to_bits().count_ones() + y.to_bits().leading_zeros()) as f32
    });
    same("bitcast<f32>(reverseBits(reverseBits(bitcast<u32>(x))))", |x, _, _| x);
    same("f32(extractBits(bitcast<u32>(x), 5u, 11u))", |x, _, _| (x.to_bits() >> 5 & 2047) as f32);
    same("bitcast<f32>(insertBits(bitcast<u32>(x), bitcast<u32>(y), 3u, 17u))", |x, y, _| {
        let mask = ((1 << 17) - 1) << 3;
        f32::from_bits(x.to_bits() & !mask | y.to_bits() << 3 & mask)
    });
    same("f32(firstLeadingBit(bitcast<u32>(y)) + firstTrailingBit(bitcast<u32>(z) | 4096u))", |_, y, z| {
        (31 - y.to_bits().leading_zeros() + (z.to_bits() | 4096).trailing_zeros()) as f32
    });
    same("select(x, y, z > 0.0)", |x, y, z| if z > 0.0 { y } else { x });
    same("select(a, b, a > b).x", |x, y, _| if x > x + y { x + y } else { x });
    same("select(0.0, 1.0, all(a > vec4<f32>(0.0)) || any(c < vec3<f32>(-0.9)))", |x, y, z| {
        let all = x > 0.0 && y > 0.0 && z > 0.0 && x + y > 0.0;
        f32::from(u8::from(all || [x, y, z].iter().any(|v| *v < -0.9)))
    });
    same("f32(i32(x * 100.0) / 7 % 5 - i32(-3))", |x, _, _| ((x * 100.0) as i32 / 7 % 5 + 3) as f32);
}

#[test]
fn halves_and_bytes_are_packed_and_unpacked() {
    let half = |v: f32| half::f16::from_f32(v);
    same("unpack2x16float(pack2x16float(vec2<f32>(x, y))).y", |_, y, _| half(y).to_f32());
    same("quantizeToF16(x)", |x, _, _| half(x).to_f32());
    same("f32(f16(x) * f16(y))", |x, y, _| (half(x) * half(y)).to_f32());
    same("f32((vec4<f16>(a) + vec4<f16>(b)).y)", |_, y, z| (half(y) + half(z)).to_f32());
    same("f32(dot4U8Packed(bitcast<u32>(x), bitcast<u32>(y)))", |x, y, _| {
        let bytes = |v: f32| v.to_bits().to_le_bytes().map(u32::from);
        bytes(x).iter().zip(bytes(y)).map(|(a, b)| a * b).sum::<u32>() as f32
    });
    same("f32(unpack4xI8(bitcast<u32>(x)).z + unpack4xI8(bitcast<u32>(y)).w)", |x, y, _| {
        f32::from(i16::from(x.to_bits().to_le_bytes()[2] as i8) + i16::from(y.to_bits().to_le_bytes()[3] as i8))
    });
    same("unpack4x8unorm(pack4x8unorm(a)).y", |_, y, _| (y.clamp(0.0, 1.0) * 255.0).round_ties_even() / 255.0);
    same("unpack2x16snorm(pack2x16snorm(a.xy)).x", |x, _, _| {
        (x.clamp(-1.0, 1.0) * 32767.0).round_ties_even() / 32767.0
    });
    same("f32(pack4xU8(vec4<u32>(1u, 2u, 3u, 0u)))", |_, _, _| 197121.0);
}

#[test]
fn every_operation_on_halves_is_rounded() {
    let half = |v: f32| half::f16::from_f32(v);
    same("f32(f16(x) * f16(y) + f16(z))", |x, y, z| (half(x) * half(y) + half(z)).to_f32());
    same("f32((vec4<f16>(a) * vec4<f16>(b) - vec4<f16>(a) * 0.3h).y)", |_, y, z| {
        (half(y) * half(z) - half(y) * half(0.3)).to_f32()
    });
    same("f32(exp(f16(y)) / -f16(z))", |_, y, z| (half(half(y).to_f32().exp()) / -half(z)).to_f32());
    same("select(0.0, 1.0, f16(x) < f16(y))", |x, y, _| f32::from(u8::from(half(x) < half(y))));
}

#[test]
fn vectors_of_bool_are_no_numbers_but_convert_to_them() {
    same("f32(vec4<u32>(a > b).x)", |x, y, _| f32::from(u8::from(x > x + y)));
    same("dot(vec3<f32>(c < vec3<f32>(0.1)), vec3<f32>(1.0, 2.0, 4.0))", |x, y, z| {
        f32::from(u8::from(z < 0.1) + 2 * u8::from(x < 0.1) + 4 * u8::from(y < 0.1))
    });
    same("select(x, y, all((a < b) == !(a >= b)) && any((c < a.xyz) | (c >= a.xyz)))", |_, y, _| y);
}

#[test]
fn integer_vectors_shift_wrap_and_divide() {
    same("f32((vec4<u32>(bitcast<vec4<u32>>(a) >> vec4<u32>(28u, 3u, 1u, 0u)) & vec4<u32>(15u)).x)", |x, _, _| {
        (x.to_bits() >> 28) as f32
    });
    same("f32((vec2<i32>(-7, i32(x * 9.0)) / vec2<i32>(2, -3)).y << 1u)", |x, _, _| {
        (((x * 9.0) as i32 / -3) << 1) as f32
    });
    same("f32((abs(vec2<i32>(a.xy * 9.0)) % vec2<i32>(4, 3) - -vec2<i32>(c.xy * 5.0)).y)", |x, y, _| {
        (((y * 9.0) as i32).abs() % 3 + (x * 5.0) as i32) as f32
    });
    same("bitcast<f32>((bitcast<vec2<u32>>(a.xy) * 2654435761u + 5u).y)", |_, y, _| {
        f32::from_bits(y.to_bits().wrapping_mul(2654435761).wrapping_add(5))
    });
}

#[test]
fn matrices_multiply_column_by_column() {
    same("(mat2x2<f32>(x, y, z, x) * vec2<f32>(z, y)).x", |x, y, z| x * z + z * y);
    same("(vec2<f32>(x, y) * mat2x2<f32>(x, y, z, x)).y", |x, y, z| x * z + y * x);
    same("(mat2x2<f32>(x, y, z, x) * mat2x2<f32>(z, y, x, z))[1].x", |x, _, z| x * x + z * z);
    same("determinant(mat2x2<f32>(x, y, z, x)) + transpose(mat3x2<f32>(x, y, z, x, y, z))[1].x", |x, y, z| {
        x * x - z * y + y
    });
}

#[test]
fn members_of_three_are_packed() {
    let wgsl = "
        struct Item { v: vec3<f32>, w: f32 }
        @group(0) @binding(0) var<storage, read_write> items: array<Item>;
        @compute @workgroup_size(1) fn main_() {
            items[1].v = items[0].v.zyx * 2.0;
            items[1].w = items[0].w + items[0].v.y + items[1].v[2];
        }";
    let y = Bench::new(wgsl).threads(1).bind_f32(0, &[1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]).floats(0);
    assert_eq!(y[4..], [6.0, 4.0, 2.0, 8.0]);
}
