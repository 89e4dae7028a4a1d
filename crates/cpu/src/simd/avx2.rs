use super::{Kernel, LANES, Simd};
use std::arch::x86_64::*;

/// AVX2 with FMA and F16C: two registers hold sixteen lanes. Made only by [`run`].
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// Runs `kernel` compiled with AVX2.
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn compiled<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx2(()))
    }
    assert!(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"));
    // SAFETY: the features are there.
    unsafe { compiled(kernel) }
}

/// Applies one eight-lane instruction to both halves.
macro_rules! halves {
    (|$($x:ident),+| $body:expr) => {{
        // SAFETY: an `Avx2` exists only where the processor has AVX2, FMA and F16C.
        unsafe { [{ $(let $x = $x[0];)+ $body }, { $(let $x = $x[1];)+ $body }] }
    }};
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: an `Avx2` exists only where the processor has AVX2.
        [unsafe { _mm256_set1_ps(x) }; 2]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        let at = [from.as_ptr(), from[8..].as_ptr()];
        halves!(|at| _mm256_loadu_ps(at))
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::F {
        let at = [from.as_ptr(), from[8..].as_ptr()];
        halves!(|at| _mm256_cvtph_ps(_mm_loadu_si128(at.cast())))
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F {
        let at = [from.as_ptr(), from[8..].as_ptr()];
        halves!(|at| {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        })
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], x: Self::F) {
        let (low, high) = to.split_at_mut(8);
        let at = [low.as_mut_ptr(), high.as_mut_ptr()];
        halves!(|at, x| _mm256_storeu_ps(at, x));
    }
    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES], x: Self::F) {
        let (low, high) = to.split_at_mut(8);
        let at = [low.as_mut_ptr(), high.as_mut_ptr()];
        halves!(|at, x| _mm_storeu_si128(at.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)));
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(|a, b| _mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(|a, b| _mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(|a, b| _mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(|a, b| _mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        halves!(|a, b, c| _mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(|a, b| _mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn scale(self, p: Self::F, shifted: Self::F) -> Self::F {
        halves!(|p, shifted| {
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent))
        })
    }
    #[inline(always)]
    fn keep_from(self, x: Self::F, test: Self::F, limit: Self::F) -> Self::F {
        halves!(|x, test, limit| _mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(test, limit), x))
    }
    #[inline(always)]
    fn load_words(self, from: &[u32; LANES]) -> Self::I {
        let at = [from.as_ptr(), from[8..].as_ptr()];
        halves!(|at| _mm256_loadu_si256(at.cast()))
    }
    #[inline(always)]
    fn store_words(self, to: &mut [u32; LANES], x: Self::I) {
        let (low, high) = to.split_at_mut(8);
        let at = [low.as_mut_ptr(), high.as_mut_ptr()];
        halves!(|at, x| _mm256_storeu_si256(at.cast(), x));
    }
    #[inline(always)]
    fn zero(self) -> Self::I {
        // SAFETY: an `Avx2` exists only where the processor has AVX2.
        [unsafe { _mm256_setzero_si256() }; 2]
    }
    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        halves!(|a, b| _mm256_or_si256(a, b))
    }
    #[inline(always)]
    fn field(self, x: Self::I, shift: i32, mask: u32) -> Self::I {
        halves!(|x| {
            let count = _mm256_set1_epi32(shift.abs());
            let shifted = if shift < 0 { _mm256_sllv_epi32(x, count) } else { _mm256_srlv_epi32(x, count) };
            _mm256_and_si256(shifted, _mm256_set1_epi32(mask.cast_signed()))
        })
    }
    #[inline(always)]
    fn look_up(self, x: Self::I, table: &[u8; 16]) -> Self::I {
        let from = [table.as_ptr(); 2];
        halves!(|x, from| _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast())), x))
    }
    #[inline(always)]
    fn reinterpret(self, x: Self::I) -> Self::F {
        halves!(|x| _mm256_castsi256_ps(x))
    }
    #[inline(always)]
    fn dot(self, acc: Self::I, codes: [Self::I; 2], x: [u32; 2]) -> Self::I {
        let [a, b] = codes;
        halves!(|acc, a, b| {
            // Four products of at most 63 · 127 fit sixteen bits.
            let first = _mm256_maddubs_epi16(a, _mm256_set1_epi32(x[0].cast_signed()));
            let second = _mm256_maddubs_epi16(b, _mm256_set1_epi32(x[1].cast_signed()));
            let pairs = _mm256_add_epi16(first, second);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }
    #[inline(always)]
    fn dot_wide(self, acc: Self::I, codes: [Self::I; 2], x: [u32; 2]) -> Self::I {
        let mut acc = acc;
        for (codes, x) in codes.into_iter().zip(x) {
            // Products of whole bytes overflow sixteen bits: Σ q·x = Σ |q−128|·±x + 128·Σ x.
            acc = halves!(|acc, codes| {
                let (one, x) = (_mm256_set1_epi16(1), _mm256_set1_epi32(x.cast_signed()));
                let offset = _mm256_set1_epi8(-128);
                let signed = _mm256_xor_si256(codes, offset);
                let products = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(x, signed));
                let rest = _mm256_maddubs_epi16(offset, x);
                let sum = _mm256_add_epi32(_mm256_madd_epi16(products, one), _mm256_madd_epi16(rest, one));
                _mm256_add_epi32(acc, sum)
            });
        }
        acc
    }
    #[inline(always)]
    fn float(self, x: Self::I) -> Self::F {
        halves!(|x| _mm256_cvtepi32_ps(x))
    }
    #[inline(always)]
    fn byte(self, x: Self::I, at: usize) -> Self::F {
        if at == 3 {
            // In place it could be a sign.
            return halves!(|x| {
                let last = _mm256_cvtepi32_ps(_mm256_srli_epi32::<24>(x));
                _mm256_mul_ps(last, _mm256_set1_ps(16_777_216.0))
            });
        }
        halves!(|x| _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xff << (8 * at)))))
    }
    #[inline(always)]
    fn round(self, x: Self::F) -> Self::I {
        halves!(|x| _mm256_cvtps_epi32(x))
    }
    #[inline(always)]
    fn prefetch(self, from: *const u8) {
        // SAFETY: a hint; it reads nothing that the program could see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}
