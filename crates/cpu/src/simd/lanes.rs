/// Lanes of a [`Simd::F`].
pub(crate) const LANES: usize = 16;

/// Operations on sixteen lanes. Methods are `#[inline(always)]`, so that they compile inside [`vectorize`]'s features.
pub(crate) trait Simd: Copy {
    /// Sixteen `f32`.
    type F: Copy;
    /// Sixteen 32-bit words.
    type I: Copy;
    /// Number of `F` that fit the registers.
    const REGISTERS: usize;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, from: &[f32; LANES]) -> Self::F;
    /// Widens IEEE binary16.
    fn load_f16(self, from: &[u16; LANES]) -> Self::F;
    /// Widens the upper halves of binary32.
    fn load_bf16(self, from: &[u16; LANES]) -> Self::F;
    fn store(self, to: &mut [f32; LANES], x: Self::F);
    /// Narrows to IEEE binary16, rounding to nearest even.
    fn store_f16(self, to: &mut [u16; LANES], x: Self::F);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// a · b + c, fused where the hardware can.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; `b` where either is NaN or both are equal, on x86.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// p · 2^n, n being the low bits of `shifted` = n + 1.5·2²³ and |n| ≤ 126.
    fn scale(self, p: Self::F, shifted: Self::F) -> Self::F;
    /// `x` where `test` ≥ `limit`, 0 elsewhere.
    fn keep_from(self, x: Self::F, test: Self::F, limit: Self::F) -> Self::F;

    fn load_words(self, from: &[u32; LANES]) -> Self::I;
    fn store_words(self, to: &mut [u32; LANES], x: Self::I);
    fn zero(self) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    /// x / 2^`shift` & `mask`, of words without a sign; a negative shift is to the left. Both are constants once inlined.
    fn field(self, x: Self::I, shift: i32, mask: u32) -> Self::I;
    /// Value of each byte, which is below 16, in `table`.
    fn look_up(self, x: Self::I, table: &[u8; 16]) -> Self::I;
    /// The same bits as `f32`.
    fn reinterpret(self, x: Self::I) -> Self::F;
    /// acc + Σ code · x over the four bytes of a word, for two words: codes of at most 63, four signed bytes `x` for all lanes.
    fn dot(self, acc: Self::I, codes: [Self::I; 2], x: [u32; 2]) -> Self::I;
    /// Computes [`Self::dot`] with codes of up to 255.
    fn dot_wide(self, acc: Self::I, codes: [Self::I; 2], x: [u32; 2]) -> Self::I;
    /// Signed words to `f32`.
    fn float(self, x: Self::I) -> Self::F;
    /// Byte `at` of every word, times 256^at, so that it can stay where it is.
    fn byte(self, x: Self::I, at: usize) -> Self::F;
    /// Nearest integers, ties to even.
    fn round(self, x: Self::F) -> Self::I;
    /// Asks for the cache line at `from`, which need not be memory.
    fn prefetch(self, from: *const u8);

    /// Sum of the lanes, in a fixed order: halves folded onto each other.
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        fold(self, x, |a, b| a + b)
    }

    /// Largest lane.
    #[inline(always)]
    fn top(self, x: Self::F) -> f32 {
        fold(self, x, |a, b| if a > b { a } else { b })
    }

    /// 2^x to about one unit in the last place; 0 below 2^-126, for −∞ too.
    #[inline(always)]
    fn exp2(self, x: Self::F) -> Self::F {
        /// 1.5·2²³: adding it leaves the nearest integer in the low bits.
        const SHIFT: f32 = 12_582_912.0;
        /// ln(2)^i / i!, highest power first.
        const TAYLOR: [f32; 7] =
            [1.525_273_4e-5, 1.540_353e-4, 1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 2.402_265e-1, 6.931_472e-1];
        let lowest = self.splat(-126.0);
        let bounded = self.max(x, lowest);
        let shifted = self.add(bounded, self.splat(SHIFT));
        let fraction = self.sub(bounded, self.sub(shifted, self.splat(SHIFT)));
        let mut p = self.splat(TAYLOR[0]);
        for c in &TAYLOR[1..] {
            p = self.fma(p, fraction, self.splat(*c));
        }
        p = self.fma(p, fraction, self.splat(1.0));
        self.keep_from(self.scale(p, shifted), x, lowest)
    }
}

#[inline(always)]
fn fold<S: Simd>(simd: S, x: S::F, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    simd.store(&mut lanes, x);
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

/// A computation that any instruction set can run.
pub(crate) trait Kernel {
    /// Type of its result.
    type Output;
    /// Computes; `#[inline(always)]`, as is everything hot below it.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The sixteen values from `at`.
#[inline(always)]
pub(crate) fn lanes<T>(values: &[T], at: usize) -> &[T; LANES] {
    values[at..].first_chunk().expect("callers stay sixteen values away from the end")
}

/// The sixteen values from `at`, to write.
#[inline(always)]
pub(crate) fn lanes_mut<T>(values: &mut [T], at: usize) -> &mut [T; LANES] {
    values[at..].first_chunk_mut().expect("callers stay sixteen values away from the end")
}
