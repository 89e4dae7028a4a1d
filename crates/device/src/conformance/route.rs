//! [`Route`] against the oracle, and against itself with other rows around.

use super::data::{Noise, assert_close, assert_same_bits, for_all};
use super::rig::{download, room, run, upload};
use crate::ops::{Route, Scoring};
use crate::oracle;
use crate::{Device, DeviceError, Op};
use proptest::prelude::*;
use std::sync::Arc;

/// Weights are `f32`, whatever the arithmetic of products.
const EXACT: f64 = 1e-5;

/// A case: everything on the host.
#[derive(Debug, Clone)]
struct Case {
    logits: Vec<f32>,
    experts: usize,
    slots: usize,
    /// Added to scores that are each expert's own.
    bias: Option<Vec<f32>>,
    renormalize: bool,
    factor: f32,
}

impl Case {
    fn new(rows: usize, experts: usize, slots: usize, sigmoid: bool, renormalize: bool, seed: u32) -> Self {
        let mut noise = Noise::new(seed);
        let bias = sigmoid.then(|| noise.units(experts));
        let logits = noise.units(rows * experts).iter().map(|x| 6.0 * x).collect();
        Self { logits, experts, slots, bias, renormalize, factor: if sigmoid { 2.5 } else { 1.0 } }
    }

    fn rows(&self) -> usize {
        self.logits.len() / self.experts
    }

    fn expected(&self) -> (Vec<u32>, Vec<f32>) {
        let scoring = self.bias.as_deref().map_or(oracle::Scoring::Softmax, oracle::Scoring::Sigmoid);
        let Self { slots, renormalize, factor, .. } = *self;
        let route = oracle::Route { slots, scoring, renormalize, factor };
        let (chosen, weights): (Vec<_>, Vec<_>) =
            self.logits.chunks_exact(self.experts).map(|row| route.row(row)).unzip();
        (chosen.concat(), weights.concat())
    }

    fn op(&self, device: &Arc<dyn Device>) -> Route {
        let count = self.rows() * self.slots;
        let bias = self.bias.as_ref().map(|bias| upload(device, bias));
        Route {
            logits: upload(device, &self.logits),
            rows: self.rows(),
            experts: self.experts,
            slots: self.slots,
            scoring: bias.map_or(Scoring::Softmax, |bias| Scoring::Sigmoid { bias }),
            renormalize: self.renormalize,
            factor: self.factor,
            chosen: room(device, 4 * count),
            weights: room(device, 4 * count),
        }
    }

    fn found(&self, device: &Arc<dyn Device>) -> (Vec<u32>, Vec<f32>) {
        let (op, count) = (self.op(device), self.rows() * self.slots);
        run(device, Op::Route(op.clone()));
        (download(&op.chosen, count), download(&op.weights, count))
    }

    fn check(&self, device: &Arc<dyn Device>) {
        let ((chosen, weights), (wanted, expected)) = (self.found(device), self.expected());
        assert_eq!(chosen, wanted, "{self:?}");
        assert_close(&weights, &expected, EXACT, self);
    }
}

/// Either scoring, all numbers of experts and of those that are chosen.
pub fn any_experts_are_chosen_as_the_oracle_chooses(device: &Arc<dyn Device>) {
    let shapes = (1usize..20, 1usize..200, 1usize..12, any::<bool>(), any::<bool>(), any::<u32>());
    for_all(32, shapes, |(rows, experts, slots, sigmoid, renormalize, seed)| {
        Case::new(rows, experts, slots.min(experts), sigmoid, renormalize, seed).check(device);
    });
    Case::new(3, Route::MAX_EXPERTS, 16, false, true, 1).check(device);
    Case::new(2, 64, 64, true, false, 2).check(device);
}

/// Of experts with one score the lowest are taken, in rising order.
pub fn equal_scores_go_to_the_lower_expert(device: &Arc<dyn Device>) {
    for sigmoid in [false, true] {
        let mut case = Case::new(4, 150, 8, sigmoid, true, 3);
        // A few values, each of many experts.
        case.logits.iter_mut().for_each(|x| *x = x.round());
        case.bias.iter_mut().flatten().for_each(|x| *x = 0.0);
        case.logits[..150].fill(-1.0);
        case.check(device);
        assert_eq!(case.found(device).0[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}

/// A row has the same bits alone and among others.
pub fn company_changes_no_experts(device: &Arc<dyn Device>) {
    for sigmoid in [false, true] {
        let case = Case::new(33, 128, 8, sigmoid, sigmoid, 4);
        let (chosen, weights) = case.found(device);
        for row in [0, 17, 32] {
            let alone = Case { logits: case.logits[row * 128..(row + 1) * 128].to_vec(), ..case.clone() };
            let (own, own_weights) = alone.found(device);
            assert_eq!(chosen[row * 8..(row + 1) * 8], own, "row {row}");
            assert_same_bits(&weights[row * 8..(row + 1) * 8], &own_weights, (sigmoid, row));
        }
    }
}

/// A row with a logit that is not finite has the first experts and weights that are no number; other rows have their own.
pub fn rows_that_are_not_finite_have_no_weights(device: &Arc<dyn Device>) {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for sigmoid in [false, true] {
            let good = Case::new(3, 40, 4, sigmoid, true, 5);
            let mut bad = good.clone();
            bad.logits[40 + 39] = value;
            let ((chosen, weights), (wanted, expected)) = (bad.found(device), good.found(device));
            assert_eq!(chosen[4..8], [0, 1, 2, 3], "{value} {sigmoid}");
            assert!(weights[4..8].iter().all(|weight| weight.is_nan()), "{value} {sigmoid}: {weights:?}");
            for row in [0, 2] {
                assert_eq!(chosen[row * 4..][..4], wanted[row * 4..][..4]);
                assert_same_bits(&weights[row * 4..][..4], &expected[row * 4..][..4], (value, sigmoid));
            }
        }
    }
}

/// Makes a good op a bad one.
type Change<'a> = &'a dyn Fn(&mut Route);

/// Numbers of experts that contradict each other, and buffers that are too short or overlap, are refused when they are recorded.
pub fn experts_that_there_are_not_are_refused(device: &Arc<dyn Device>) {
    let good = Case::new(2, 16, 4, true, true, 6).op(device);
    let record = |change: Change<'_>| {
        let mut op = good.clone();
        change(&mut op);
        device.compute_queue().encoder().expect("an encoder is granted").record(Op::Route(op))
    };
    assert_eq!(record(&|_| {}), Ok(()));
    let bad: [(&str, Change<'_>); 8] = [
        ("17 of 16", &|op| op.slots = 17),
        ("0 of 16", &|op| op.slots = 0),
        ("0 experts", &|op| op.experts = 0),
        ("1025 experts; there may be 1 to 1024", &|op| op.experts = 1025),
        ("logits", &|op| op.rows = 3),
        ("bias", &|op| op.scoring = Scoring::Sigmoid { bias: op.weights.slice(0..32).expect("within") }),
        ("overlap", &|op| op.chosen = op.weights.clone()),
        ("factor", &|op| op.factor = f32::NAN),
    ];
    for (words, change) in bad {
        let Err(DeviceError::Contract(message)) = record(change) else { panic!("{words} is recorded") };
        assert!(message.contains(words), "{message}");
    }
}
