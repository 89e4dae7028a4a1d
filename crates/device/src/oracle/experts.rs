use super::linear::activate;
use super::{Matrix, Norm, broken, rms_norm};
use crate::Result;
use crate::ops::Activation;

/// [`crate::ops::Stacks`] on slices.
#[derive(Debug, Clone, Copy)]
pub enum Stacks<'a> {
    /// Gate and up, each (experts · features, features in).
    Gated(Activation, [&'a Matrix; 2]),
    /// Down, and the weights of the sum: `[rows][slots]`.
    Sum(&'a Matrix, &'a [f32]),
}

/// [`crate::ops::Experts`] on slices.
#[derive(Debug, Clone, Copy)]
pub struct Experts<'a> {
    /// `[rows][features in]`, or for a sum `[rows][slots][features in]`.
    pub input: &'a [f32],
    /// `[rows][slots]`.
    pub chosen: &'a [u32],
    /// Experts of a row.
    pub slots: usize,
    /// Experts that there are.
    pub experts: usize,
    /// Norm on the way in.
    pub norm: Option<Norm<'a>>,
    /// The matrices.
    pub stacks: Stacks<'a>,
}

/// Computes all rows into `out`, or for a sum adds them to it. Fails if `chosen` names an expert that there is not.
pub fn experts(op: &Experts<'_>, out: &mut [f32]) -> Result<()> {
    if let Some(expert) = op.chosen.iter().find(|&&expert| expert as usize >= op.experts) {
        return Err(broken(format!("experts: expert {expert} of {}", op.experts)));
    }
    let cols = match op.stacks {
        Stacks::Gated(_, [gate, _]) => gate.cols,
        Stacks::Sum(down, _) => down.cols,
    };
    let input = |row: usize| {
        let x = &op.input[row * cols..(row + 1) * cols];
        op.norm.map_or_else(|| x.to_vec(), |norm| rms_norm(x, norm))
    };
    let stride = out.len() / (op.chosen.len() / op.slots);
    for (row, (chosen, out)) in op.chosen.chunks_exact(op.slots).zip(out.chunks_exact_mut(stride)).enumerate() {
        match op.stacks {
            Stacks::Gated(activation, [gate, up]) => {
                let (x, features) = (input(row), stride / op.slots);
                for (&expert, out) in chosen.iter().zip(out.chunks_exact_mut(features)) {
                    let [gate, up] = [gate, up].map(|stack| products(stack, expert, features, &x));
                    let gated = gate.iter().zip(&up).map(|(gate, up)| activate(activation, *gate) * up);
                    out.iter_mut().zip(gated).for_each(|(out, y)| *out = y as f32);
                }
            }
            Stacks::Sum(down, weights) => {
                let mut sums = vec![0.0; stride];
                for (slot, &expert) in chosen.iter().enumerate() {
                    let at = row * op.slots + slot;
                    let own = products(down, expert, stride, &input(at));
                    sums.iter_mut().zip(own).for_each(|(sum, y)| *sum += f64::from(weights[at]) * y);
                }
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out = (f64::from(*out) + sum) as f32);
            }
        }
    }
    Ok(())
}

/// An expert's matrix times x: `[features]`.
fn products(stack: &Matrix, expert: u32, features: usize, x: &[f32]) -> Vec<f64> {
    let rows = expert as usize * features..(expert as usize + 1) * features;
    let dot = |row: usize| stack.row(row).iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
    rows.map(dot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_takes_its_own_experts_rows() {
        // Three experts of one feature.
        let down = Matrix { rows: 3, cols: 2, values: vec![1.0, 0.0, 0.0, 1.0, 10.0, 10.0] };
        let op = Experts {
            input: &[3.0, 5.0, 1.0, 2.0],
            chosen: &[1, 2],
            slots: 2,
            experts: 3,
            norm: None,
            stacks: Stacks::Sum(&down, &[2.0, 0.5]),
        };
        let mut out = [100.0];
        experts(&op, &mut out).unwrap();
        // 2 · 5 + ½ · (10 + 20)
        assert_eq!(out, [125.0]);
        assert!(experts(&Experts { chosen: &[0, 3], ..op }, &mut out).is_err());
        let gate = Matrix { rows: 3, cols: 2, values: vec![100.0; 6] };
        let gated = Experts { input: &[1.0, 2.0], stacks: Stacks::Gated(Activation::Silu, [&gate, &down]), ..op };
        let mut out = [0.0; 2];
        experts(&gated, &mut out).unwrap();
        assert_eq!(out, [600.0, 9000.0]);
    }
}
