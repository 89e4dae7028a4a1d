use super::{Kernel, LANES, Simd};
use std::arch::x86_64::*;

/// AVX-512 with VNNI: one register holds all sixteen lanes. Made only by [`run`].
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// Runs `kernel` compiled with AVX-512.
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn compiled<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512(()))
    }
    assert!(is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"));
    assert!(is_x86_feature_detected!("avx512dq") && is_x86_feature_detected!("avx512vl"));
    assert!(is_x86_feature_detected!("avx512vnni"));
    assert!(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"));
    // SAFETY: the features are there.
    unsafe { compiled(kernel) }
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: an `Avx512` exists only where the processor has AVX-512.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        // SAFETY: as in `splat`; sixteen values are there.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::F {
        // SAFETY: as in `load`.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F {
        // SAFETY: as in `load`.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], x: Self::F) {
        // SAFETY: as in `load`.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES], x: Self::F) {
        // SAFETY: as in `load`.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)) }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: as in `splat`.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: as in `splat`.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: as in `splat`.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: as in `splat`.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: as in `splat`.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: as in `splat`.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn scale(self, p: Self::F, shifted: Self::F) -> Self::F {
        // SAFETY: as in `splat`.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), exponent))
        }
    }
    #[inline(always)]
    fn keep_from(self, x: Self::F, test: Self::F, limit: Self::F) -> Self::F {
        // SAFETY: as in `splat`.
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(test, limit), x) }
    }
    #[inline(always)]
    fn top(self, x: Self::F) -> f32 {
        // SAFETY: as in `splat`.
        unsafe { _mm512_reduce_max_ps(x) }
    }
    #[inline(always)]
    fn load_words(self, from: &[u32; LANES]) -> Self::I {
        // SAFETY: as in `load`.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_words(self, to: &mut [u32; LANES], x: Self::I) {
        // SAFETY: as in `load`.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
    }
    #[inline(always)]
    fn zero(self) -> Self::I {
        // SAFETY: as in `splat`.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: as in `splat`.
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    fn field(self, x: Self::I, shift: i32, mask: u32) -> Self::I {
        // SAFETY: as in `splat`.
        unsafe {
            let count = _mm512_set1_epi32(shift.abs());
            let shifted = if shift < 0 { _mm512_sllv_epi32(x, count) } else { _mm512_srlv_epi32(x, count) };
            _mm512_and_si512(shifted, _mm512_set1_epi32(mask.cast_signed()))
        }
    }
    #[inline(always)]
    fn look_up(self, x: Self::I, table: &[u8; 16]) -> Self::I {
        // SAFETY: as in `load`; sixteen bytes are there.
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), x) }
    }
    #[inline(always)]
    fn reinterpret(self, x: Self::I) -> Self::F {
        // SAFETY: as in `splat`.
        unsafe { _mm512_castsi512_ps(x) }
    }
    #[inline(always)]
    fn dot(self, acc: Self::I, codes: [Self::I; 2], x: [u32; 2]) -> Self::I {
        // SAFETY: as in `splat`.
        unsafe {
            let first = _mm512_dpbusd_epi32(acc, codes[0], _mm512_set1_epi32(x[0].cast_signed()));
            _mm512_dpbusd_epi32(first, codes[1], _mm512_set1_epi32(x[1].cast_signed()))
        }
    }
    #[inline(always)]
    fn dot_wide(self, acc: Self::I, codes: [Self::I; 2], x: [u32; 2]) -> Self::I {
        self.dot(acc, codes, x)
    }
    #[inline(always)]
    fn float(self, x: Self::I) -> Self::F {
        // SAFETY: as in `splat`.
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    fn byte(self, x: Self::I, at: usize) -> Self::F {
        // SAFETY: as in `splat`.
        unsafe { _mm512_cvtepu32_ps(_mm512_and_si512(x, _mm512_set1_epi32((0xff_u32 << (8 * at)).cast_signed()))) }
    }
    #[inline(always)]
    fn round(self, x: Self::F) -> Self::I {
        // SAFETY: as in `splat`.
        unsafe { _mm512_cvtps_epi32(x) }
    }
    #[inline(always)]
    fn prefetch(self, from: *const u8) {
        // SAFETY: a hint; it reads nothing that the program could see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}
