//! [`Experts`] against the oracle, and against itself with other rows around.

use super::data::{Noise, assert_close, assert_same_bits, for_all};
use super::rig::{download, run, tolerance, try_run, upload};
use super::weights::{Source, formats};
use crate::ops::{Activation, Experts, Norm, Stacks};
use crate::oracle;
use crate::{Device, DeviceError, Float, Op, WeightFormat, WeightSpec};
use proptest::prelude::*;
use std::sync::Arc;

/// Large enough to show.
const EPS: f32 = 0.05;
const FOUR_BITS: WeightFormat = WeightFormat::Affine { bits: 4, group: 64, scale: Float::Bf16 };

/// Description that a case is drawn from.
#[derive(Debug, Clone, Copy)]
struct Shape {
    rows: usize,
    slots: usize,
    experts: usize,
    /// Groups of features in, or of a dense matrix 41 each.
    width: usize,
    /// Sixteens of features out.
    sixteens: usize,
    format: WeightFormat,
    norm: bool,
    activation: Activation,
    sums: bool,
    seed: u32,
}

const SHAPE: Shape = Shape {
    rows: 3,
    slots: 2,
    experts: 5,
    width: 2,
    sixteens: 2,
    format: FOUR_BITS,
    norm: true,
    activation: Activation::Silu,
    sums: false,
    seed: 1,
};

/// A case: everything on the host.
struct Case {
    shape: Shape,
    input: Vec<f32>,
    chosen: Vec<u32>,
    weights: Vec<f32>,
    norm: Option<Vec<f32>>,
    /// Gate and up, or down.
    stacks: Vec<Source>,
    /// Contents of the output before.
    out: Vec<f32>,
}

impl Case {
    fn new(shape: Shape) -> Self {
        let Shape { rows, slots, experts, format, sums, .. } = shape;
        let mut noise = Noise::new(shape.seed);
        let cols = match format {
            WeightFormat::Affine { group, .. } => shape.width * usize::from(group),
            WeightFormat::Micro(_) => shape.width * 32,
            WeightFormat::Dense(_) => shape.width * 41,
        };
        let features = 16 * shape.sixteens;
        let spec = WeightSpec { rows: experts * features, cols, format };
        let stacks = (0..if sums { 1 } else { 2 }).map(|_| Source::random(spec, &mut noise)).collect();
        // Different ones in a row; some experts have many rows, some may have none.
        let chosen = (0..rows).flat_map(|_| noise.shuffled(experts)[..slots].to_vec()).collect();
        let inputs = if sums { rows * slots } else { rows };
        Self {
            input: noise.units(inputs * cols).iter().map(|x| 3.0 * x).collect(),
            weights: noise.units(rows * slots),
            norm: shape.norm.then(|| noise.units(cols).iter().map(|x| 1.0 + x / 2.0).collect()),
            out: noise.units(if sums { rows * features } else { rows * slots * features }),
            shape,
            chosen,
            stacks,
        }
    }

    fn expected(&self) -> Vec<f32> {
        let stacks: Vec<_> = self.stacks.iter().map(Source::matrix).collect();
        let op = oracle::Experts {
            input: &self.input,
            chosen: &self.chosen,
            slots: self.shape.slots,
            experts: self.shape.experts,
            norm: self.norm.as_deref().map(|weight| oracle::Norm { weight, eps: EPS }),
            stacks: match &stacks[..] {
                [gate, up] => oracle::Stacks::Gated(self.shape.activation, [gate, up]),
                _ => oracle::Stacks::Sum(&stacks[0], &self.weights),
            },
        };
        let mut out = self.out.clone();
        oracle::experts(&op, &mut out).expect("a valid case");
        out
    }

    /// The op over some of the rows, in that order.
    fn op(&self, device: &Arc<dyn Device>, rows: &[usize]) -> Experts {
        let each = |values: &[f32]| {
            let stride = values.len() / self.shape.rows;
            let values = rows.iter().flat_map(|row| &values[row * stride..(row + 1) * stride]);
            upload(device, &values.copied().collect::<Vec<f32>>())
        };
        let slots = self.shape.slots;
        let chosen: Vec<u32> = rows.iter().flat_map(|row| &self.chosen[row * slots..][..slots]).copied().collect();
        let out = each(&self.out);
        let mut stacks = self.stacks.iter().map(|stack| stack.upload(device));
        let (first, second) = (stacks.next().expect("there is one"), stacks.next());
        Experts {
            input: each(&self.input),
            rows: rows.len(),
            chosen: upload(device, &chosen),
            slots,
            experts: self.shape.experts,
            norm: self.norm.as_ref().map(|weight| Norm { weight: upload(device, weight), eps: EPS }),
            stacks: match second {
                Some(up) => Stacks::Gated { gate: first, up, activation: self.shape.activation, out },
                None => Stacks::Sum { down: first, weights: each(&self.weights), out },
            },
        }
    }

    fn run(&self, device: &Arc<dyn Device>, rows: &[usize]) -> Vec<f32> {
        let op = self.op(device, rows);
        let (Stacks::Gated { out, .. } | Stacks::Sum { out, .. }) = &op.stacks;
        let out = out.clone();
        run(device, Op::Experts(op));
        download(&out, out.len() as usize / 4)
    }

    fn check(&self, device: &Arc<dyn Device>) {
        let rows: Vec<usize> = (0..self.shape.rows).collect();
        assert_close(&self.run(device, &rows), &self.expected(), tolerance(device), self.shape);
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let format = prop::sample::select(formats());
    let counts = (1usize..20, 1usize..5, 1usize..12);
    let activation = prop::sample::select(vec![Activation::Silu, Activation::GeluTanh]);
    (counts, 1usize..4, 1usize..4, format, activation, any::<[bool; 2]>(), any::<u32>()).prop_map(
        |((rows, slots, more), width, sixteens, format, activation, [norm, sums], seed)| {
            let (norm, experts) = (norm && !sums, slots + more - 1);
            Shape { rows, slots, experts, width, sixteens, format, norm, activation, sums, seed }
        },
    )
}

/// Runs every format both ways, with one row and with several.
pub fn experts_of_every_format(device: &Arc<dyn Device>) {
    for (format, seed) in formats().into_iter().zip(0..) {
        for (sums, rows) in [(false, 1), (true, 1), (false, 9), (true, 9)] {
            Case::new(Shape { rows, format, sums, seed, ..SHAPE }).check(device);
        }
    }
}

/// Rows, slots, experts and widths in any combination.
pub fn any_number_of_experts(device: &Arc<dyn Device>) {
    for_all(32, shapes(), |shape| Case::new(shape).check(device));
}

/// A row alone, in a batch of 32, in parts of any length, and in another order: the same bits, however rows were grouped by expert.
pub fn company_changes_no_experts_product(device: &Arc<dyn Device>) {
    const ROWS: usize = 40;
    for (sums, format) in [(false, FOUR_BITS), (true, FOUR_BITS), (false, formats()[0]), (true, formats()[2])] {
        // Few experts have passes of many rows, many experts passes of one.
        for (experts, slots) in [(4, 3), (24, 2)] {
            let case = Case::new(Shape { rows: ROWS, experts, slots, sums, format, ..SHAPE });
            let whole = case.run(device, &(0..ROWS).collect::<Vec<_>>());
            let stride = whole.len() / ROWS;
            for rows in [0..1, 39..40, 0..32, 3..9, 20..37, 1..14] {
                let part = case.run(device, &rows.clone().collect::<Vec<_>>());
                let want = &whole[rows.start * stride..rows.end * stride];
                assert_same_bits(&part, want, (case.shape, rows));
            }
            let reversed = case.run(device, &(0..ROWS).rev().collect::<Vec<_>>());
            let reversed: Vec<f32> = reversed.chunks_exact(stride).rev().flatten().copied().collect();
            assert_same_bits(&reversed, &whole, (case.shape, "reversed"));
        }
    }
}

/// An expert that there is not is an error when the op runs.
pub fn unknown_experts_fail(device: &Arc<dyn Device>) {
    for sums in [false, true] {
        for expert in [5, u32::MAX] {
            let mut case = Case::new(Shape { sums, ..SHAPE });
            assert_eq!(try_run(device, Op::Experts(case.op(device, &[0, 1, 2]))), Ok(()));
            case.chosen[3] = expert;
            let outcome = try_run(device, Op::Experts(case.op(device, &[0, 1, 2])));
            assert!(
                matches!(&outcome, Err(DeviceError::Contract(message)) if message.contains("expert")),
                "{outcome:?}"
            );
        }
    }
}

/// Makes a good op a bad one.
type Change<'a> = &'a dyn Fn(&mut Experts);

/// Stacks that contradict each other, and buffers that are too short or overlap, are refused when they are recorded.
pub fn stacks_that_contradict_are_refused(device: &Arc<dyn Device>) {
    let [gated, sum] = [false, true].map(|sums| Case::new(Shape { sums, ..SHAPE }).op(device, &[0, 1, 2]));
    let record = |good: &Experts, change: Change<'_>| {
        let mut op = good.clone();
        change(&mut op);
        device.compute_queue().encoder().expect("an encoder is granted").record(Op::Experts(op))
    };
    assert_eq!((record(&gated, &|_| {}), record(&sum, &|_| {})), (Ok(()), Ok(())));
    let bad: [(&Experts, &str, Change<'_>); 8] = [
        // 160 features are no three experts' of 16 each.
        (&gated, "160 features of 3 experts", &|op| op.experts = 3),
        (&gated, "nothing to do", &|op| op.slots = 0),
        (&gated, "chosen", &|op| op.slots = 3),
        (&gated, "input", &|op| op.input = op.input.slice(0..4).expect("within")),
        (&gated, "gate and up differ", &|op| {
            let Stacks::Gated { up, .. } = &mut op.stacks else { return };
            up.spec.cols *= 2;
        }),
        (&sum, "weights", &|op| {
            let Stacks::Sum { weights, .. } = &mut op.stacks else { return };
            *weights = weights.slice(0..20).expect("within");
        }),
        (&sum, "out", &|op| {
            let Stacks::Sum { out, .. } = &mut op.stacks else { return };
            *out = out.slice(0..4).expect("within");
        }),
        (&sum, "overlaps", &|op| {
            let Stacks::Sum { out, .. } = &mut op.stacks else { return };
            *out = op.input.clone();
        }),
    ];
    for (good, words, change) in bad {
        let Err(DeviceError::Contract(message)) = record(good, change) else { panic!("{words} is recorded") };
        assert!(message.contains(words), "{message}");
    }
}
