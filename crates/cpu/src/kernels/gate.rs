//! Gated activation.

use crate::simd::{Kernel, LANES, Simd};
use mlx_serving_device::ops::Activation;

/// 2 · √(2/π).
const GELU: f32 = 1.595_769;

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
        let Self { activation, gate, up } = self;
        // e^88 is near the largest number; beyond, the sigmoid is 0 to any precision that is left.
        let (lowest, one) = (simd.splat(-126.0), simd.splat(1.0));
        // Both are x · sigmoid(x · (linear + cubic · x²)), since 1 + tanh(y) is 2 · sigmoid(2y).
        let (linear, cubic) = match activation {
            Activation::Silu => (1.0, 0.0),
            Activation::GeluTanh => (GELU, 0.044_715 * GELU),
        };
        let [linear, cubic] = [linear, cubic].map(|factor| simd.splat(factor * std::f32::consts::LOG2_E));
        for (up, gate) in up.iter_mut().zip(gate) {
            let x = simd.load(gate);
            let inner = match activation {
                Activation::Silu => simd.mul(x, linear),
                Activation::GeluTanh => simd.mul(x, simd.fma(simd.mul(x, x), cubic, linear)),
            };
            let exp = simd.exp2(simd.sub(simd.splat(0.0), simd.max(inner, lowest)));
            let activated = simd.div(x, simd.add(one, exp));
            simd.store(up, simd.mul(activated, simd.load(up)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, vectorize};

    /// Twice the activation of `x`.
    fn doubled(isa: Isa, activation: Activation, x: f32) -> f64 {
        let mut up = [[2.0; LANES]];
        vectorize(isa, Gate { activation, gate: &[[x; LANES]], up: &mut up });
        up[0][3].into()
    }

    #[test]
    fn activations_are_close_everywhere() {
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let gelu = |x: f64| x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()) / 2.0;
        for isa in Isa::available() {
            for x in [-1e30f32, -200.0, -88.0, -20.0, -4.0, -1.5, -1e-3, 0.0, 0.3, 1.5, 7.0, 90.0, 1e30] {
                for (activation, want) in [(Activation::Silu, silu(x.into())), (Activation::GeluTanh, gelu(x.into()))] {
                    let (got, want) = (doubled(isa, activation, x), 2.0 * want);
                    let error = (got - want).abs();
                    assert!(error <= 1e-6 * want.abs() + 1e-6 || x <= -1e30, "{isa:?} {activation:?}: {x} gives {got}");
                }
            }
        }
    }

    #[test]
    fn no_number_gives_none() {
        for isa in Isa::available() {
            for activation in [Activation::Silu, Activation::GeluTanh] {
                assert!(doubled(isa, activation, f32::NAN).is_nan());
            }
        }
    }
}
