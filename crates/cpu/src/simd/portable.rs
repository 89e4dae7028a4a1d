use super::{LANES, Simd};
use half::f16;

/// Plain Rust: no fused operations, because without hardware they are slow calls.
#[derive(Clone, Copy)]
pub(super) struct Portable;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

impl Simd for Portable {
    type F = [f32; LANES];
    type I = [u32; LANES];
    const REGISTERS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        *from
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::F {
        each(|i| f16::from_bits(from[i]).to_f32())
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F {
        each(|i| f32::from_bits(u32::from(from[i]) << 16))
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], x: Self::F) {
        *to = x;
    }
    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES], x: Self::F) {
        *to = x.map(|x| f16::from_f32(x).to_bits());
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn scale(self, p: Self::F, shifted: Self::F) -> Self::F {
        each(|i| f32::from_bits(p[i].to_bits().wrapping_add(shifted[i].to_bits() << 23)))
    }
    #[inline(always)]
    fn keep_from(self, x: Self::F, test: Self::F, limit: Self::F) -> Self::F {
        each(|i| if test[i] >= limit[i] { x[i] } else { 0.0 })
    }
    #[inline(always)]
    fn load_words(self, from: &[u32; LANES]) -> Self::I {
        *from
    }
    #[inline(always)]
    fn store_words(self, to: &mut [u32; LANES], x: Self::I) {
        *to = x;
    }
    #[inline(always)]
    fn zero(self) -> Self::I {
        [0; LANES]
    }
    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn field(self, x: Self::I, shift: i32, mask: u32) -> Self::I {
        if shift < 0 { x.map(|x| x << -shift & mask) } else { x.map(|x| x >> shift & mask) }
    }
    #[inline(always)]
    fn look_up(self, x: Self::I, table: &[u8; 16]) -> Self::I {
        x.map(|x| u32::from_le_bytes(x.to_le_bytes().map(|byte| table[usize::from(byte & 15)])))
    }
    #[inline(always)]
    fn reinterpret(self, x: Self::I) -> Self::F {
        x.map(f32::from_bits)
    }
    #[inline(always)]
    fn dot(self, acc: Self::I, codes: [Self::I; 2], x: [u32; 2]) -> Self::I {
        let mut acc = acc;
        for (codes, x) in codes.iter().zip(x) {
            let x = x.to_le_bytes().map(|x| i32::from(x.cast_signed()));
            for (acc, code) in acc.iter_mut().zip(codes) {
                let byte = |at: usize| (code >> (8 * at) & 0xff).cast_signed();
                let sum = byte(0) * x[0] + byte(1) * x[1] + byte(2) * x[2] + byte(3) * x[3];
                *acc = acc.wrapping_add(sum.cast_unsigned());
            }
        }
        acc
    }
    #[inline(always)]
    fn dot_wide(self, acc: Self::I, codes: [Self::I; 2], x: [u32; 2]) -> Self::I {
        self.dot(acc, codes, x)
    }
    #[inline(always)]
    fn float(self, x: Self::I) -> Self::F {
        x.map(|x| x.cast_signed() as f32)
    }
    #[inline(always)]
    fn byte(self, x: Self::I, at: usize) -> Self::F {
        x.map(|x| (x & 0xff << (8 * at)) as f32)
    }
    #[inline(always)]
    fn round(self, x: Self::F) -> Self::I {
        x.map(|x| (x.round_ties_even() as i32).cast_unsigned())
    }
    #[inline(always)]
    fn prefetch(self, _from: *const u8) {}
}
