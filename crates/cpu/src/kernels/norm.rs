//! RMS norm of one row.

use crate::simd::{Kernel, LANES, Simd, lanes};

/// to = row · weight / sqrt(mean(row²) + eps).
pub(crate) struct RmsNorm<'a> {
    pub(crate) row: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) eps: f32,
    pub(crate) to: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { row, weight, eps, to } = self;
        let factor = norm_factor(simd, row, eps);
        for ((to, x), w) in to.iter_mut().zip(row).zip(weight) {
            *to = x * factor * w;
        }
    }
}

/// row = row · weight / sqrt(mean(row²) + eps).
pub(crate) struct NormInPlace<'a> {
    pub(crate) row: &'a mut [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) eps: f32,
}

impl Kernel for NormInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { row, weight, eps } = self;
        let factor = norm_factor(simd, row, eps);
        for (x, w) in row.iter_mut().zip(weight) {
            *x = *x * factor * w;
        }
    }
}

/// to += row · weight / sqrt(mean(row²) + eps).
pub(crate) struct AddNorm<'a> {
    pub(crate) row: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) eps: f32,
    pub(crate) to: &'a mut [f32],
}

impl Kernel for AddNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { row, weight, eps, to } = self;
        let factor = norm_factor(simd, row, eps);
        for ((to, x), w) in to.iter_mut().zip(row).zip(weight) {
            *to += x * factor * w;
        }
    }
}

/// 1 / sqrt(mean(row²) + eps).
#[inline(always)]
pub(crate) fn norm_factor<S: Simd>(simd: S, row: &[f32], eps: f32) -> f32 {
    1.0 / (sum_of_squares(simd, row) / row.len() as f32 + eps).sqrt()
}

/// Sum of squares by two interleaved accumulators, folded at the end; the tail in order.
#[inline(always)]
fn sum_of_squares<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let (pairs, rest) = row.as_chunks::<{ 2 * LANES }>();
    let mut sums = [simd.splat(0.0); 2];
    for pair in pairs {
        for (i, sum) in sums.iter_mut().enumerate() {
            let x = simd.load(lanes(pair, i * LANES));
            *sum = simd.fma(x, x, *sum);
        }
    }
    rest.iter().fold(simd.sum(simd.add(sums[0], sums[1])), |sum, x| sum + x * x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, vectorize};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn has_unit_mean_square(row in prop::collection::vec(0.1f32..3.0, 1..200), scale in 0.5f32..2.0) {
            let weight = vec![scale; row.len()];
            for isa in Isa::available() {
                let mut to = vec![0.0; row.len()];
                vectorize(isa, RmsNorm { row: &row, weight: &weight, eps: 0.0, to: &mut to });
                let mean = to.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / row.len() as f64;
                prop_assert!((mean.sqrt() / f64::from(scale) - 1.0).abs() < 1e-5, "{mean}");
            }
        }
    }
}
