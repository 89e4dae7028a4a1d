//! [`Linear`] against the oracle, and against itself with other rows around.

use super::data::{Noise, assert_close, assert_same_bits, for_all};
use super::rig::{download, room, run, tolerance, try_run, upload};
use super::weights::{Source, formats};
use crate::ops::{Activation, Epilogue, Linear, Norm, Projection};
use crate::oracle::{self, Finish};
use crate::{Device, DeviceError, Float, Op, WeightFormat, WeightSpec};
use proptest::prelude::*;
use std::sync::Arc;

/// Large enough to show.
const EPS: f32 = 0.05;

/// Description that a case is drawn from.
#[derive(Debug, Clone)]
struct Shape {
    rows: usize,
    cols: usize,
    /// Features of each projection.
    features: Vec<usize>,
    format: WeightFormat,
    bias: bool,
    norm: bool,
    /// Rows of the input, if rows are gathered from it.
    gather: Option<usize>,
    finish: Finish,
    seed: u32,
}

/// A case: everything on the host.
struct Case {
    shape: Shape,
    input: Vec<f32>,
    gather: Option<Vec<u32>>,
    norm: Option<Vec<f32>>,
    weights: Vec<Source>,
    biases: Vec<Option<Vec<f32>>>,
    /// Contents of the output before.
    out: Vec<f32>,
}

impl Case {
    fn new(shape: Shape) -> Self {
        let mut noise = Noise::new(shape.seed);
        let stride = match shape.finish {
            Finish::Gated(_) => shape.features[0],
            _ => shape.features.iter().sum(),
        };
        let gather = shape.gather.map(|have| (0..shape.rows).map(|_| noise.below(have) as u32).collect());
        Self {
            input: noise.units(shape.gather.unwrap_or(shape.rows) * shape.cols).iter().map(|x| 3.0 * x).collect(),
            gather,
            norm: shape.norm.then(|| noise.units(shape.cols).iter().map(|x| 1.0 + x / 2.0).collect()),
            weights: shape
                .features
                .iter()
                .map(|&rows| WeightSpec { rows, cols: shape.cols, format: shape.format })
                .map(|spec| Source::random(spec, &mut noise))
                .collect(),
            biases: shape.features.iter().map(|&rows| shape.bias.then(|| noise.units(rows))).collect(),
            out: noise.units(shape.rows * stride),
            shape,
        }
    }

    fn expected(&self) -> Vec<f32> {
        let matrices: Vec<_> = self.weights.iter().map(Source::matrix).collect();
        let projection = |(weight, bias)| oracle::Projection { weight, bias: Option::as_deref(bias) };
        let projections: Vec<_> = matrices.iter().zip(&self.biases).map(projection).collect();
        let op = oracle::Linear {
            input: &self.input,
            gather: self.gather.as_deref(),
            rows: self.shape.rows,
            norm: self.norm.as_deref().map(|weight| oracle::Norm { weight, eps: EPS }),
            projections: &projections,
            finish: self.shape.finish,
        };
        let mut out = self.out.clone();
        oracle::linear(&op, &mut out).expect("a valid case");
        out
    }

    /// The op over the rows of `input` and `out`, which are this case's or some of them.
    fn op(&self, device: &Arc<dyn Device>, input: &[f32], gather: Option<&[u32]>, out: &[f32]) -> Linear {
        let stride = self.out.len() / self.shape.rows;
        let to = upload(device, out);
        let projection = |(weight, bias): (&Source, &Option<Vec<f32>>)| Projection {
            weight: weight.upload(device),
            bias: bias.as_ref().map(|bias| upload(device, bias)),
        };
        Linear {
            input: upload(device, input),
            gather: gather.map(|gather| upload(device, gather)),
            rows: out.len() / stride,
            norm: self.norm.as_ref().map(|weight| Norm { weight: upload(device, weight), eps: EPS }),
            projections: self.weights.iter().zip(&self.biases).map(projection).collect(),
            epilogue: match self.shape.finish {
                Finish::Store => Epilogue::Store(to),
                Finish::Add => Epilogue::Add(to),
                Finish::Gated(activation) => Epilogue::Gated(activation, to),
            },
        }
    }

    fn run(&self, device: &Arc<dyn Device>) -> Vec<f32> {
        result(device, self.op(device, &self.input, self.gather.as_deref(), &self.out))
    }
}

fn result(device: &Arc<dyn Device>, op: Linear) -> Vec<f32> {
    let (Epilogue::Store(out) | Epilogue::Add(out) | Epilogue::Gated(_, out)) = &op.epilogue;
    let out = out.clone();
    run(device, Op::Linear(op));
    download(&out, out.len() as usize / 4)
}

/// Widths of any number of groups, or of anything when dense; features enough that no result is near zero by chance.
fn shapes() -> impl Strategy<Value = Shape> {
    let gates = [Activation::Silu, Activation::GeluTanh].map(Finish::Gated);
    let finishes = [[Finish::Store, Finish::Add], gates].concat();
    let format = prop::sample::select(formats());
    let features = (16usize..80, prop::collection::vec(1usize..50, 0..3));
    let rows = prop::sample::select(vec![1usize, 2, 5, 8, 17, 33, 40, 70]);
    let options = (any::<bool>(), any::<bool>(), prop::option::of(1usize..20), prop::sample::select(finishes));
    (rows, 1usize..6, features, format, options, any::<u32>()).prop_map(
        |(rows, width, (first, others), format, (bias, norm, gather, finish), seed)| {
            let cols = match format {
                WeightFormat::Affine { group, .. } => width * usize::from(group),
                WeightFormat::Micro(_) => width * 32,
                WeightFormat::Dense(_) => width * 41,
            };
            let features = match finish {
                Finish::Gated(_) => vec![first, first],
                _ => [vec![first], others].concat(),
            };
            Shape { rows, cols, features, format, bias, norm, gather, finish, seed }
        },
    )
}

/// Runs every format, with one row and with several.
pub fn every_format(device: &Arc<dyn Device>) {
    for (format, seed) in formats().into_iter().zip(0..) {
        for rows in [1, 6] {
            let shape = Shape {
                rows,
                cols: 256,
                features: vec![33],
                format,
                bias: false,
                norm: false,
                gather: None,
                finish: Finish::Store,
                seed,
            };
            let case = Case::new(shape);
            assert_close(&case.run(device), &case.expected(), tolerance(device), &case.shape);
        }
    }
}

/// Norms, biases, gathered rows, several weights, and each epilogue, in any combination.
pub fn any_shape(device: &Arc<dyn Device>) {
    for_all(48, shapes(), |shape| {
        let case = Case::new(shape);
        assert_close(&case.run(device), &case.expected(), tolerance(device), &case.shape);
    });
}

/// A row alone, in parts of its batch, and in the whole batch, which no kernel takes for few: the same bits.
pub fn a_row_depends_on_itself_only(device: &Arc<dyn Device>) {
    const ROWS: usize = 41;
    for_all(24, shapes(), |shape| {
        let case = Case::new(Shape { rows: ROWS, gather: None, ..shape });
        let (cols, stride) = (case.shape.cols, case.out.len() / ROWS);
        let whole = case.run(device);
        for rows in [0..1, 4..5, 40..41, 1..4, 3..9, 20..37, 5..38] {
            let out = &case.out[rows.start * stride..rows.end * stride];
            let op = case.op(device, &case.input[rows.start * cols..rows.end * cols], None, out);
            let want = &whole[rows.start * stride..rows.end * stride];
            assert_same_bits(&result(device, op), want, (&case.shape, &rows));
        }
        let reversed: Vec<u32> = (0..ROWS as u32).rev().collect();
        let mut out: Vec<f32> = case.out.chunks_exact(stride).rev().flatten().copied().collect();
        out = result(device, case.op(device, &case.input, Some(&reversed), &out));
        let out: Vec<f32> = out.chunks_exact(stride).rev().flatten().copied().collect();
        assert_same_bits(&out, &whole, (&case.shape, "reversed"));
    });
}

/// A gathered row that the input lacks is an error, and so is an output within the input.
pub fn gathered_rows_stay_within_the_input(device: &Arc<dyn Device>) {
    let shape = Shape {
        rows: 3,
        cols: 64,
        features: vec![64],
        format: WeightFormat::Affine { bits: 4, group: 64, scale: Float::Bf16 },
        bias: true,
        norm: true,
        gather: Some(4),
        finish: Finish::Store,
        seed: 6,
    };
    let case = Case::new(shape);
    let with = |gather: [u32; 3]| try_run(device, Op::Linear(case.op(device, &case.input, Some(&gather), &case.out)));
    assert_eq!(with([3, 0, 3]), Ok(()));
    for gather in [[0, 4, 1], [u32::MAX, 0, 0]] {
        assert!(matches!(with(gather), Err(DeviceError::Contract(_))), "{gather:?}");
    }
    let mut op = case.op(device, &case.input, case.gather.as_deref(), &case.out);
    op.input = room(device, 4 * 4 * 64);
    op.epilogue = Epilogue::Add(op.input.slice(256..1024).expect("within"));
    assert!(matches!(try_run(device, Op::Linear(op)), Err(DeviceError::Contract(_))));
}
