use super::{Kernel, LANES, Simd};
use half::f16;
use std::arch::aarch64::*;

/// NEON: four registers hold sixteen lanes; every AArch64 processor of ours has it. Made only by [`run`].
#[derive(Clone, Copy)]
pub(super) struct Neon(());

/// Runs `kernel`; NEON is a part of the target.
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon(()))
}

/// Applies one four-lane instruction to all quarters.
macro_rules! quarters {
    (|$($x:ident),+| $body:expr) => {
        // SAFETY: NEON is a part of the target.
        std::array::from_fn(#[inline(always)] |i| unsafe { $(let $x = $x[i];)+ $body })
    };
}

impl Simd for Neon {
    type F = [float32x4_t; 4];
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: NEON is a part of the target.
        [unsafe { vdupq_n_f32(x) }; 4]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        // SAFETY: NEON is a part of the target; four values are there for each quarter.
        std::array::from_fn(|i| unsafe { vld1q_f32(from[4 * i..4 * i + 4].as_ptr()) })
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::F {
        self.load(&std::array::from_fn(|i| f16::from_bits(from[i]).to_f32()))
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], x: Self::F) {
        for i in 0..4 {
            // SAFETY: as in `load`.
            unsafe { vst1q_f32(to[4 * i..4 * i + 4].as_mut_ptr(), x[i]) }
        }
    }
    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES], x: Self::F) {
        let mut wide = [0.0; LANES];
        self.store(&mut wide, x);
        *to = wide.map(|x| f16::from_f32(x).to_bits());
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|a, b| vaddq_f32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|a, b| vsubq_f32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|a, b| vmulq_f32(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        quarters!(|a, b, c| vfmaq_f32(c, a, b))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|a, b| vbslq_f32(vcgtq_f32(a, b), a, b))
    }
    #[inline(always)]
    fn scale(self, p: Self::F, shifted: Self::F) -> Self::F {
        quarters!(|p, shifted| {
            let exponent = vshlq_n_s32::<23>(vreinterpretq_s32_f32(shifted));
            vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), exponent))
        })
    }
    #[inline(always)]
    fn keep_from(self, x: Self::F, test: Self::F, limit: Self::F) -> Self::F {
        quarters!(|x, test, limit| {
            vreinterpretq_f32_u32(vandq_u32(vcgeq_f32(test, limit), vreinterpretq_u32_f32(x)))
        })
    }
}
