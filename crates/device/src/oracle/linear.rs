use super::{Matrix, Norm, broken, rms_norm};
use crate::Result;
use crate::ops::Activation;

/// A matrix with its bias.
#[derive(Debug, Clone, Copy)]
pub struct Projection<'a> {
    /// (features out, features in).
    pub weight: &'a Matrix,
    /// `[features out]`.
    pub bias: Option<&'a [f32]>,
}

/// Treatment of a row's products, the projections' side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Replaces the row of `out` by the results.
    Store,
    /// Adds the results to the row of `out`.
    Add,
    /// activation(first half) · second half replaces it.
    Gated(Activation),
}

/// [`crate::ops::Linear`] on slices.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a> {
    /// `[input rows][features in]`.
    pub input: &'a [f32],
    /// `[rows]`.
    pub gather: Option<&'a [u32]>,
    /// Rows out.
    pub rows: usize,
    /// Norm on the way in.
    pub norm: Option<Norm<'a>>,
    /// At least one.
    pub projections: &'a [Projection<'a>],
    /// Treatment of the products.
    pub finish: Finish,
}

/// Computes all rows into `out`: `[rows][features]`. Fails if `gather` names a row that the input lacks.
pub fn linear(op: &Linear<'_>, out: &mut [f32]) -> Result<()> {
    let cols = op.projections[0].weight.cols;
    let stride = out.len() / op.rows;
    for (row, out) in out.chunks_exact_mut(stride).enumerate() {
        let from = op.gather.map_or(row, |gather| gather[row] as usize);
        let have = op.input.len() / cols;
        if from >= have {
            return Err(broken(format!("linear: input row {from} of {have}")));
        }
        let x = &op.input[from * cols..(from + 1) * cols];
        let normed = op.norm.map(|norm| rms_norm(x, norm));
        let products: Vec<f64> =
            op.projections.iter().flat_map(|p| project(p, normed.as_deref().unwrap_or(x))).collect();
        finish(op.finish, &products, out);
    }
    Ok(())
}

/// W·x + bias.
fn project(projection: &Projection<'_>, x: &[f32]) -> Vec<f64> {
    let product = |row: usize| {
        let weight = projection.weight.row(row);
        let dot: f64 = weight.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        dot + projection.bias.map_or(0.0, |bias| f64::from(bias[row]))
    };
    (0..projection.weight.rows).map(product).collect()
}

fn finish(finish: Finish, products: &[f64], out: &mut [f32]) {
    match finish {
        Finish::Store => out.iter_mut().zip(products).for_each(|(out, y)| *out = *y as f32),
        Finish::Add => out.iter_mut().zip(products).for_each(|(out, y)| *out = (f64::from(*out) + y) as f32),
        Finish::Gated(activation) => {
            let (gate, up) = products.split_at(products.len() / 2);
            let gated = gate.iter().zip(up).map(|(gate, up)| activate(activation, *gate) * up);
            out.iter_mut().zip(gated).for_each(|(out, y)| *out = y as f32);
        }
    }
}

pub(super) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(values: [f32; 4]) -> Matrix {
        Matrix { rows: 2, cols: 2, values: values.to_vec() }
    }

    #[test]
    fn projections_lie_side_by_side_and_biases_are_added() {
        let (a, b) = (matrix([1.0, 2.0, 3.0, 4.0]), matrix([0.0, 1.0, 1.0, 0.0]));
        let projections = [Projection { weight: &a, bias: Some(&[10.0, 20.0]) }, Projection { weight: &b, bias: None }];
        let mut op = Linear {
            input: &[1.0, 1.0, 5.0, 6.0],
            gather: None,
            rows: 2,
            norm: None,
            projections: &projections,
            finish: Finish::Store,
        };
        let mut out = [0.0; 8];
        linear(&op, &mut out).unwrap();
        assert_eq!(out, [13.0, 27.0, 1.0, 1.0, 27.0, 59.0, 6.0, 5.0]);
        op = Linear { finish: Finish::Add, rows: 1, gather: Some(&[1]), ..op };
        linear(&op, &mut out[..4]).unwrap();
        assert_eq!(out[..4], [40.0, 86.0, 7.0, 6.0]);
        op.gather = Some(&[2]);
        assert!(linear(&op, &mut out[..4]).is_err());
    }

    #[test]
    fn a_gate_opens_with_its_sign() {
        let (gate, up) = (matrix([100.0, 0.0, -100.0, 0.0]), matrix([1.0, 0.0, 1.0, 0.0]));
        let projections = [Projection { weight: &gate, bias: None }, Projection { weight: &up, bias: None }];
        let op = Linear {
            input: &[1.0, 0.0],
            gather: None,
            rows: 1,
            norm: None,
            projections: &projections,
            finish: Finish::Gated(Activation::Silu),
        };
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let op = Linear { finish: Finish::Gated(activation), ..op };
            let mut out = [7.0; 2];
            linear(&op, &mut out).unwrap();
            assert!(out[0] == 100.0 && out[1].abs() < 1e-30, "{out:?}");
        }
    }

    #[test]
    fn a_gelu_of_one_is_what_is_printed_of_it() {
        // Of x · Φ(x), 0.8413447 and −0.1586553, which tanh comes near.
        for (x, want) in [(1.0, 0.841_192), (-1.0, -0.158_808), (0.0, 0.0), (2.5, 2.484_916)] {
            assert!((activate(Activation::GeluTanh, x) - want).abs() < 1e-6, "{x}");
        }
    }
}
