use std::fmt;

/// An instruction set that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AVX-512 with VNNI; a processor that has AVX-512 without it runs AVX2.
    Avx512,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// NEON, with dot products where the processor has them.
    Neon,
    /// Plain Rust.
    Portable,
}

impl Isa {
    /// Instruction sets that this machine can run, best first.
    pub fn available() -> Vec<Isa> {
        let all = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];
        all.into_iter().filter(|isa| isa.detected()).collect()
    }

    /// Best instruction set that this machine can run.
    pub fn best() -> Isa {
        Self::available()[0]
    }

    /// Name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        }
    }

    /// The processor features that it uses.
    pub fn features(self) -> &'static [&'static str] {
        match self {
            Isa::Avx512 => &["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx2", "fma", "f16c"],
            Isa::Avx2 => &["avx2", "fma", "f16c"],
            #[cfg(target_arch = "aarch64")]
            Isa::Neon if std::arch::is_aarch64_feature_detected!("dotprod") => &["neon", "dotprod"],
            Isa::Neon => &["neon"],
            Isa::Portable => &[],
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn detected(self) -> bool {
        let avx2 =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        match self {
            Isa::Avx512 => avx2 && avx512,
            Isa::Avx2 => avx2,
            Isa::Neon => false,
            Isa::Portable => true,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detected(self) -> bool {
        self == Isa::Portable || (self == Isa::Neon && cfg!(target_arch = "aarch64"))
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
