use super::{Kernel, LANES, Simd};
use half::f16;
use std::arch::aarch64::*;
use std::arch::asm;
use std::arch::is_aarch64_feature_detected;

/// NEON: four registers hold sixteen lanes; every AArch64 processor of ours has it. `DOT`: it has the dot product instructions
/// of ARMv8.2 too. Made only by [`run`].
#[derive(Clone, Copy)]
pub(super) struct Neon<const DOT: bool>(());

/// Runs `kernel`; NEON is a part of the target, dot products are looked for.
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    #[target_feature(enable = "dotprod")]
    fn compiled<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Neon::<true>(()))
    }
    if is_aarch64_feature_detected!("dotprod") {
        // SAFETY: the feature is there.
        return unsafe { compiled(kernel) };
    }
    kernel.run(Neon::<false>(()))
}

/// acc + Σ a · b over the four signed bytes of each word. |a| · |b| is at most 128 · 127.
#[inline(always)]
fn dot_signed<const DOT: bool>(acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    if DOT {
        let mut sum = acc;
        // SAFETY: a `Neon<true>` exists only where the processor has the instruction, which touches registers only. The directive
        // lets the assembler know it; the intrinsic is not stable yet.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        return sum;
    }
    // SAFETY: NEON is a part of the target. Two products fit sixteen bits.
    unsafe {
        let (low, high) = (vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b));
        vpadalq_s16(acc, vpaddq_s16(low, high))
    }
}

/// Applies one four-lane instruction to all quarters.
macro_rules! quarters {
    (|$($x:ident),+| $body:expr) => {
        // SAFETY: NEON is a part of the target.
        std::array::from_fn(#[inline(always)] |i| unsafe { $(let $x = $x[i];)+ $body })
    };
}

impl<const DOT: bool> Simd for Neon<DOT> {
    type F = [float32x4_t; 4];
    type I = [uint32x4_t; 4];
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
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F {
        // SAFETY: as in `load`.
        std::array::from_fn(|i| unsafe {
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from[4 * i..4 * i + 4].as_ptr())))
        })
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
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|a, b| vdivq_f32(a, b))
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
    #[inline(always)]
    fn load_words(self, from: &[u32; LANES]) -> Self::I {
        // SAFETY: as in `load`.
        std::array::from_fn(|i| unsafe { vld1q_u32(from[4 * i..4 * i + 4].as_ptr()) })
    }
    #[inline(always)]
    fn store_words(self, to: &mut [u32; LANES], x: Self::I) {
        for i in 0..4 {
            // SAFETY: as in `load`.
            unsafe { vst1q_u32(to[4 * i..4 * i + 4].as_mut_ptr(), x[i]) }
        }
    }
    #[inline(always)]
    fn zero(self) -> Self::I {
        // SAFETY: NEON is a part of the target.
        [unsafe { vdupq_n_u32(0) }; 4]
    }
    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        quarters!(|a, b| vorrq_u32(a, b))
    }
    #[inline(always)]
    fn field(self, x: Self::I, shift: i32, mask: u32) -> Self::I {
        quarters!(|x| vandq_u32(vshlq_u32(x, vdupq_n_s32(-shift)), vdupq_n_u32(mask)))
    }
    #[inline(always)]
    fn look_up(self, x: Self::I, table: &[u8; 16]) -> Self::I {
        // SAFETY: as in `load`; sixteen bytes are there.
        let table = [unsafe { vld1q_u8(table.as_ptr()) }; 4];
        quarters!(|x, table| vreinterpretq_u32_u8(vqtbl1q_u8(table, vreinterpretq_u8_u32(x))))
    }
    #[inline(always)]
    fn reinterpret(self, x: Self::I) -> Self::F {
        quarters!(|x| vreinterpretq_f32_u32(x))
    }
    #[inline(always)]
    fn dot(self, acc: Self::I, codes: [Self::I; 2], x: [u32; 2]) -> Self::I {
        let [a, b] = codes;
        quarters!(|acc, a, b| {
            let [first, second] = [vdupq_n_s32(x[0].cast_signed()), vdupq_n_s32(x[1].cast_signed())];
            let sum = vreinterpretq_s32_u32(acc);
            let sum = dot_signed::<DOT>(sum, vreinterpretq_s8_u32(a), vreinterpretq_s8_s32(first));
            vreinterpretq_u32_s32(dot_signed::<DOT>(sum, vreinterpretq_s8_u32(b), vreinterpretq_s8_s32(second)))
        })
    }
    #[inline(always)]
    fn dot_wide(self, acc: Self::I, codes: [Self::I; 2], x: [u32; 2]) -> Self::I {
        let mut acc = acc;
        for (codes, x) in codes.into_iter().zip(x) {
            // Codes have no sign, the instruction has: Σ q·x = Σ (q−128)·x + 2·Σ 64·x.
            acc = quarters!(|acc, codes| {
                let x = vreinterpretq_s8_s32(vdupq_n_s32(x.cast_signed()));
                let signed = vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_u32(codes), vdupq_n_u8(128)));
                let sum = dot_signed::<DOT>(vreinterpretq_s32_u32(acc), signed, x);
                let half = vdupq_n_s8(64);
                vreinterpretq_u32_s32(dot_signed::<DOT>(dot_signed::<DOT>(sum, half, x), half, x))
            });
        }
        acc
    }
    #[inline(always)]
    fn float(self, x: Self::I) -> Self::F {
        quarters!(|x| vcvtq_f32_s32(vreinterpretq_s32_u32(x)))
    }
    #[inline(always)]
    fn byte(self, x: Self::I, at: usize) -> Self::F {
        quarters!(|x| vcvtq_f32_u32(vandq_u32(x, vdupq_n_u32(0xff << (8 * at)))))
    }
    #[inline(always)]
    fn round(self, x: Self::F) -> Self::I {
        quarters!(|x| vreinterpretq_u32_s32(vcvtnq_s32_f32(x)))
    }
    #[inline(always)]
    fn prefetch(self, _from: *const u8) {}
}
