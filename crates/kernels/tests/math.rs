//! The scalar functions of `lib/math.wgsl` and `lib/divide.wgsl`, mirrored operation by operation with the constants of the WGSL itself, so
//! that their error can be measured without a device: with every product fused into its sum, and with none.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

const MATH: &str = include_str!("../src/wgsl/lib/math.wgsl");

/// The value of `const {name}: f32` in `lib/math.wgsl`.
fn constant(name: &str) -> f32 {
    let start = format!("const {name}: f32 = ");
    let line = MATH.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("no {name}"));
    line.trim_end_matches(';').parse().unwrap()
}

struct Math {
    fused: bool,
    ln_2_high: f32,
    ln_2_low: f32,
    log2_e: f32,
    exp: [f32; 5],
    ln: [f32; 8],
}

impl Math {
    fn both() -> [Math; 2] {
        [false, true].map(|fused| Math {
            fused,
            ln_2_high: constant("LN_2_HIGH"),
            ln_2_low: constant("LN_2_LOW"),
            log2_e: constant("LOG2_E"),
            exp: std::array::from_fn(|i| constant(&format!("EXP_{i}"))),
            ln: std::array::from_fn(|i| constant(&format!("LN_{i}"))),
        })
    }

    /// a · b + c.
    fn sum(&self, a: f32, b: f32, c: f32) -> f32 {
        if self.fused { a.mul_add(b, c) } else { a * b + c }
    }

    fn polynomial(&self, coefficients: &[f32], x: f32) -> f32 {
        coefficients.iter().copied().rev().reduce(|tail, c| self.sum(tail, x, c)).unwrap()
    }

    fn exp(&self, x: f32) -> f32 {
        let within = x.clamp(-104.0, 89.0);
        let n = self.sum(within, self.log2_e, 0.5).floor();
        let r = self.sum(-n, self.ln_2_low, self.sum(-n, self.ln_2_high, within));
        let half = n as i32 / 2;
        let value = 1.0 + self.sum(r * r, self.polynomial(&self.exp, r), r);
        value * power_of_two(half) * power_of_two(n as i32 - half)
    }

    fn ln(&self, x: f32) -> f32 {
        const ROOT_HALF: u32 = 0x3f35_04f3;
        let shifted = x.to_bits().wrapping_sub(ROOT_HALF);
        let n = (shifted as i32 >> 23) as f32;
        let f = f32::from_bits((shifted & 0x7f_ffff) + ROOT_HALF) - 1.0;
        let square = f * f;
        let low = self.sum(f * square, self.polynomial(&self.ln, f), n * self.ln_2_low);
        self.sum(n, self.ln_2_high, f - self.sum(0.5, square, -low))
    }
}

fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

/// Distance of `got` from `want`, in units of the last place of the f32 next to `want`; infinite if it is no number.
fn ulps(got: f32, want: f64) -> f64 {
    if got.is_nan() {
        return f64::INFINITY;
    }
    let near = (want as f32).abs();
    let ulp = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
    (f64::from(got) - want).abs() / ulp
}

/// Mantissas of every exponent, each at its own offset, and all of both neighbors of 1 that are near to it.
fn samples() -> impl Iterator<Item = f32> {
    let spread = (0x0080_0000..0x7f80_0000u32).step_by(4001).map(f32::from_bits);
    spread.chain((0x3f80_0000 - 50_000..0x3f80_0000 + 50_000).map(f32::from_bits))
}

#[test]
fn logarithms_are_within_two_ulp() {
    for math in Math::both() {
        let worst = samples().map(|x| ulps(math.ln(x), f64::from(x).ln())).fold(0.0, f64::max);
        println!("ln: {worst:.3} ulp, fused: {}", math.fused);
        assert!(worst < 2.0, "{worst}");
        assert_eq!(math.ln(1.0), 0.0);
    }
}

#[test]
fn exponentials_are_within_two_ulp() {
    let normal = |x: &f32| (-87.33..88.72).contains(x);
    for math in Math::both() {
        let signs = samples().flat_map(|x| [x, -x]);
        let dense = (-88_000..89_000).map(|x| x as f32 * 1e-3);
        let worst =
            signs.chain(dense).filter(normal).map(|x| ulps(math.exp(x), f64::from(x).exp())).fold(0.0, f64::max);
        println!("exp: {worst:.3} ulp, fused: {}", math.fused);
        assert!(worst < 2.0, "{worst}");
        assert_eq!((math.exp(0.0), math.exp(-0.0)), (1.0, 1.0));
        assert_eq!((math.exp(89.0), math.exp(f32::INFINITY)), (f32::INFINITY, f32::INFINITY));
        assert_eq!((math.exp(-104.0), math.exp(f32::NEG_INFINITY)), (0.0, 0.0));
    }
}

/// `exact_divide`, whose first quotient is `off` units of the last place away.
fn divide(a: f32, b: f32, off: i32) -> f32 {
    let exponent = |x: f32| (x.to_bits() >> 23 & 255) as i32;
    let mantissa = |x: f32| x.to_bits() & 0x7f_ffff | 0x80_0000;
    let (m, n) = (mantissa(a), mantissa(b));
    let shift = if m < n { 24 } else { 23 };
    let result = exponent(a) - exponent(b) + 150 - shift;
    let (low, high) = (exponent(a).min(exponent(b)), exponent(a).max(exponent(b)));
    if !(low > 0 && high < 255 && result > 0 && result < 255) {
        return a / b;
    }
    let near = m as f32 / n as f32;
    let near = f32::from_bits(near.to_bits().wrapping_add_signed(off));
    let mut quotient = (near * (1u32 << shift) as f32) as u32;
    let mut remainder = (m << shift).wrapping_sub(quotient.wrapping_mul(n)) as i32;
    while remainder < 0 {
        (quotient, remainder) = (quotient - 1, remainder + n as i32);
    }
    while remainder >= n as i32 {
        (quotient, remainder) = (quotient + 1, remainder - n as i32);
    }
    if 2 * remainder > n as i32 {
        quotient += 1;
    }
    let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
    f32::from_bits(sign | (((result as u32) << 23) + quotient - 0x80_0000))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn quotients_are_ieee_quotients_however_wrong_the_first_is(a: u32, b: u32, off in -4i32..=4) {
        let (a, b) = (f32::from_bits(a), f32::from_bits(b));
        let (got, want) = (divide(a, b, off), a / b);
        prop_assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{a:e} / {b:e}: {got:e}, {want:e}");
    }

    #[test]
    fn quotients_of_logits_are_ieee_quotients(a in -50.0f32..50.0, b in 0.01f32..3.0, off in -4i32..=4) {
        prop_assert_eq!(divide(a, b, off).to_bits(), (a / b).to_bits());
    }
}
