//! [`Normalize`] against the oracle, and against itself with other rows around.

use super::data::{Noise, assert_close, assert_same_bits, for_all};
use super::rig::{download, run, upload};
use crate::ops::{Norm, Normalize};
use crate::oracle;
use crate::{Device, DeviceError, Op};
use proptest::prelude::*;
use std::sync::Arc;

/// Large enough to show.
const EPS: f32 = 0.05;
/// Inputs and sums are `f32`, whatever the arithmetic of products.
const EXACT: f64 = 1e-5;

/// A case: everything on the host.
struct Case {
    rows: usize,
    stride: usize,
    first: usize,
    input: Vec<f32>,
    weight: Vec<f32>,
    /// Contents of the target before, if there is one.
    target: Option<Vec<f32>>,
}

impl Case {
    fn new(rows: usize, (first, width, behind): (usize, usize, usize), adds: bool, seed: u32) -> Self {
        let (mut noise, stride) = (Noise::new(seed), first + width + behind);
        let weight = noise.units(width).iter().map(|x| 1.0 + x / 2.0).collect();
        let input = noise.units(rows * stride).iter().map(|x| 3.0 * x).collect();
        Self { rows, stride, first, input, weight, target: adds.then(|| noise.units(rows * width)) }
    }

    /// A case of one of the rows alone.
    fn alone(&self, row: usize) -> Self {
        let cut = |values: &Vec<f32>, stride| values[row * stride..(row + 1) * stride].to_vec();
        let target = self.target.as_ref().map(|target| cut(target, self.weight.len()));
        Self { rows: 1, input: cut(&self.input, self.stride), weight: self.weight.clone(), target, ..*self }
    }

    fn expected(&self) -> Vec<f32> {
        let (width, mut input) = (self.weight.len(), self.input.clone());
        let norm = oracle::Norm { weight: &self.weight, eps: EPS };
        let op = oracle::Normalize { stride: self.stride, columns: self.first..self.first + width, norm };
        let mut target = self.target.clone();
        oracle::normalize(&op, &mut input, target.as_deref_mut());
        target.unwrap_or(input)
    }

    fn found(&self, device: &Arc<dyn Device>) -> Vec<f32> {
        let op = Normalize {
            input: upload(device, &self.input),
            rows: self.rows,
            stride: self.stride,
            first: self.first,
            width: self.weight.len(),
            norm: Norm { weight: upload(device, &self.weight), eps: EPS },
            target: self.target.as_ref().map(|target| upload(device, target)),
        };
        let (input, target) = (op.input.clone(), op.target.clone());
        run(device, Op::Normalize(op));
        match target {
            None => download(&input, self.input.len()),
            Some(target) => {
                assert_same_bits(&download(&input, self.input.len()), &self.input, "the input is only read");
                download(&target, self.rows * self.weight.len())
            }
        }
    }
}

/// Norms of any width, in place or added, over all columns or some; the other columns keep their bits.
pub fn columns_of_any_width(device: &Arc<dyn Device>) {
    let shapes = (1usize..20, (0usize..40, 1usize..700, 0usize..40), any::<bool>(), any::<u32>());
    for_all(24, shapes, |(rows, columns, adds, seed)| {
        let case = Case::new(rows, columns, adds, seed);
        let found = case.found(device);
        assert_close(&found, &case.expected(), EXACT, (rows, columns, adds));
        if !adds {
            let (first, behind) = (columns.0, columns.0 + columns.1);
            for (found, was) in found.chunks(case.stride).zip(case.input.chunks(case.stride)) {
                assert_same_bits(&found[..first], &was[..first], "columns before");
                assert_same_bits(&found[behind..], &was[behind..], "columns behind");
            }
        }
    });
}

/// A row has the same bits alone and among others.
pub fn company_changes_no_bit(device: &Arc<dyn Device>) {
    for (width, adds) in [(64, false), (333, true), (4096, true), (4096, false)] {
        let case = Case::new(40, (8, width, 3), adds, 5);
        let (together, each) = (case.found(device), if adds { width } else { case.stride });
        for row in [0, 17, 39] {
            let alone = case.alone(row).found(device);
            assert_same_bits(&together[row * each..(row + 1) * each], &alone, (width, adds, row));
        }
    }
}

/// Columns beyond a row, and a target within the input, are refused when they are recorded.
pub fn columns_outside_and_overlap_are_refused(device: &Arc<dyn Device>) {
    let memory = upload(device, &[1f32; 64]);
    let part = |from: u64, to: u64| memory.slice(4 * from..4 * to).expect("within");
    let refused = |first, width, target| {
        let norm = Norm { weight: part(48, 64), eps: EPS };
        let op = Normalize { input: part(0, 32), rows: 2, stride: 16, first, width, norm, target };
        let mut encoder = device.compute_queue().encoder().expect("an encoder is granted");
        matches!(encoder.record(Op::Normalize(op)), Err(DeviceError::Contract(_)))
    };
    assert!(!refused(8, 8, None) && !refused(8, 8, Some(part(32, 48))));
    assert!(refused(9, 8, None) && refused(0, 0, None) && refused(0, 8, Some(part(31, 47))));
    assert!(refused(0, 9, Some(part(32, 48))), "a target that is too short");
}
