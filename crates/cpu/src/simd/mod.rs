//! Sixteen lanes of `f32` or of 32-bit words, whatever the machine calls them.
//!
//! A [`Kernel`] is written once against [`Simd`]; [`vectorize`] compiles it for each instruction set and runs the right one. A
//! value of a type that implements [`Simd`] is the proof that the processor has its instructions. Lanes never mix unless a method says so,
//! so results do not depend on how wide the hardware really is, only on whether it fuses multiply and add.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod isa;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

pub use isa::Isa;
pub(crate) use lanes::{Kernel, LANES, Simd, lanes, lanes_mut};

/// Runs `kernel`, compiled for `isa`.
pub(crate) fn vectorize<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::run(kernel),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::run(kernel),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::run(kernel),
        _ => kernel.run(portable::Portable),
    }
}
