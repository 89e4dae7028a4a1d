//! Gated activation.

use crate::simd::{Kernel, LANES, Simd};
use mlx_serving_device::ops::Activation;

/// up = activation(gate) · up, vector by vector.
pub(crate) struct Gate<'a> {
    pub(crate) activation: Activation,
    pub(crate) gate: &'a [[f32; LANES]],
    pub(crate) up: &'a mut [[f32; LANES]],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { activation: Activation::Silu, gate, up } = self;
        // e^88 is near the largest number; beyond, the sigmoid is 0 to any precision that is left.
        let (log2e, lowest, one) = (simd.splat(std::f32::consts::LOG2_E), simd.splat(-126.0), simd.splat(1.0));
        for (up, gate) in up.iter_mut().zip(gate) {
            let x = simd.load(gate);
            let exponent = simd.max(simd.mul(x, log2e), lowest);
            let exp = simd.exp2(simd.sub(simd.splat(0.0), exponent));
            let activated = simd.div(x, simd.add(one, exp));
            simd.store(up, simd.mul(activated, simd.load(up)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, vectorize};

    #[test]
    fn silu_is_close_everywhere() {
        for isa in Isa::available() {
            for x in [-1e30f32, -200.0, -88.0, -20.0, -1.5, -1e-3, 0.0, 0.3, 7.0, 90.0, 1e30] {
                let mut up = [[2.0; LANES]];
                vectorize(isa, Gate { activation: Activation::Silu, gate: &[[x; LANES]], up: &mut up });
                let want = 2.0 * f64::from(x) / (1.0 + (-f64::from(x)).exp());
                let error = (f64::from(up[0][3]) - want).abs();
                assert!(error <= 1e-6 * want.abs() + 1e-7 || x <= -1e30, "{isa:?}: {x} gives {}", up[0][3]);
            }
        }
    }

    #[test]
    fn silu_of_no_number_is_none() {
        for isa in Isa::available() {
            let mut up = [[1.0; LANES]];
            vectorize(isa, Gate { activation: Activation::Silu, gate: &[[f32::NAN; LANES]], up: &mut up });
            assert!(up[0][0].is_nan());
        }
    }
}
