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
}
