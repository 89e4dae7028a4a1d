//! Bytes that an op must move and operations that it must compute, whatever the kernel does.

use super::plan::Case;
use mlx_serving_device::ops::{Attend, Epilogue, Experts, Linear, Stacks};
use mlx_serving_device::{Device, Op, Weight};

/// Bytes of an f32, and of a u32.
const WORD: u64 = 4;

/// Cost of one call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Bytes read and written: weights as a checkpoint has them, the KV cache as the device has it, activations.
    pub bytes: u64,
    pub multiply_adds: u64,
}

/// Costs of `op` in a step on this device.
pub(super) fn cost(op: &Op, case: &Case, device: &dyn Device) -> Cost {
    match op {
        Op::Embed(op) => {
            let row = op.table[0].spec;
            let part = weight_bytes(&op.table[0]) / row.rows as u64;
            Cost { bytes: op.rows as u64 * (WORD + part + WORD * row.cols as u64), multiply_adds: 0 }
        }
        Op::RopeAngles(op) => {
            let (rows, pairs) = (op.rows as u64, op.pairs as u64);
            Cost { bytes: WORD * (rows + pairs + 2 * rows * pairs), multiply_adds: rows * pairs }
        }
        Op::Linear(op) => linear(op),
        Op::Normalize(op) => {
            // Read and written, and with a target that is read, too.
            let each = if op.target.is_some() { 3 } else { 2 };
            Cost {
                bytes: WORD * (op.width * (each * op.rows + 1)) as u64,
                multiply_adds: 2 * (op.rows * op.width) as u64,
            }
        }
        Op::Route(op) => {
            let (logits, pairs) = (op.rows * op.experts, op.rows * op.slots);
            Cost { bytes: WORD * (logits + 2 * pairs) as u64, multiply_adds: logits as u64 }
        }
        Op::Experts(op) => experts(op),
        Op::Attend(op) => attend(op, case, (device.kv_block_bytes(&op.kv) / op.kv.block_tokens) as u64),
        Op::Sample(op) => Cost { bytes: WORD * (op.rows * (op.vocab + 1)) as u64, multiply_adds: 0 },
        Op::Copy(op) => Cost { bytes: 2 * op.from.len(), multiply_adds: 0 },
        Op::Observe(op) => Cost { bytes: WORD * (op.vocab + op.count) as u64, multiply_adds: 0 },
    }
}

/// Bytes of a weight in a checkpoint.
fn weight_bytes(weight: &Weight) -> u64 {
    let (values, scales, biases) = weight.spec.source_bytes();
    (values + scales + biases) as u64
}

fn linear(op: &Linear) -> Cost {
    let (rows, cols, features) = (op.rows as u64, op.cols() as u64, op.features() as u64);
    let weights: u64 = op.projections.iter().map(|p| weight_bytes(&p.weight)).sum();
    let biases: u64 = op.projections.iter().filter_map(|p| p.bias.as_ref()).map(|bias| bias.len()).sum();
    let norm = op.norm.as_ref().map_or(0, |_| WORD * cols);
    let out = match op.epilogue {
        Epilogue::Store(_) => features,
        Epilogue::Add(_) => 2 * features,
        Epilogue::Gated(..) => features / 2,
    };
    Cost { bytes: weights + biases + norm + WORD * rows * (cols + out), multiply_adds: rows * cols * features }
}

/// Of each expert that is chosen, its weights once: of all, where there are more pairs of a row and a slot than experts.
fn experts(op: &Experts) -> Cost {
    let (rows, pairs) = (op.rows as u64, (op.rows * op.slots) as u64);
    let (cols, features, read) = (op.cols() as u64, op.features() as u64, pairs.min(op.experts as u64));
    let weights = |stack: &Weight| read * weight_bytes(stack) / op.experts as u64;
    let norm = op.norm.as_ref().map_or(0, |_| WORD * cols);
    let (weights, stacks, values) = match &op.stacks {
        Stacks::Gated { gate, up, .. } => (weights(gate) + weights(up), 2, rows * cols + pairs * features),
        // Read and written; weights of the sum beside.
        Stacks::Sum { down, .. } => (weights(down), 1, pairs * (cols + 1) + 2 * rows * features),
    };
    Cost { bytes: weights + norm + WORD * (values + pairs), multiply_adds: stacks * pairs * cols * features }
}

/// `kv_token`: bytes of a token's keys and values in one layer.
fn attend(op: &Attend, case: &Case, kv_token: u64) -> Cost {
    let (rows, each, sequences) = (case.rows as u64, case.rows_each() as u64, case.sequences as u64);
    let width = (op.heads * op.kv.head_dim) as u64;
    let qkv = ((op.heads + 2 * op.kv.heads) * op.kv.head_dim) as u64;
    let values = rows * (qkv + 2 * op.pairs as u64 + width);
    // What was there before is read once, what is new is written.
    let kv = sequences * case.context as u64 * kv_token;
    // Every row sees itself and all before it.
    let seen = each * case.start() as u64 + each * (each + 1) / 2;
    Cost { bytes: WORD * values + kv, multiply_adds: 2 * sequences * seen * width }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::kernels::memory::Memory;
    use crate::commands::kernels::plan::Plan;
    use crate::commands::kernels::rig::{MeasuredOp, Rig};
    use mlx_serving_device::fake::{FakeDevice, FakeOptions};
    use mlx_serving_model::synth::{Synth, shapes};
    use std::sync::Arc;

    fn with_rig(shape: &str, cases: (&[usize], &[usize]), check: impl Fn(&Plan, &Rig<'_>, &dyn Device)) {
        let options = FakeOptions { unified_memory: false, compute: false, ..Default::default() };
        let device: Arc<dyn Device> = FakeDevice::new(options).unwrap();
        let synth = Synth { shape: shape.into(), bits: 4, group_size: 64, seed: 0 };
        let plan = Plan::new(synth, cases.0, cases.1, device.as_ref()).unwrap();
        let rig = Rig::new(&plan, Memory::new(&device).unwrap()).unwrap();
        check(&plan, &rig, device.as_ref());
    }

    #[test]
    fn every_op_of_every_architecture_is_valid_and_costs_something() {
        for shape in shapes().filter(|shape| shape.name.starts_with("tiny-")) {
            with_rig(shape.name, (&[1, 5, 130], &[1, 33]), |plan, rig, device| {
                for case in &plan.cases {
                    let step = rig.step(case).unwrap();
                    let kernels = MeasuredOp::ALL.into_iter().filter(|&kernel| step.has(kernel));
                    for (kernel, call) in kernels.flat_map(|kernel| [(kernel, 0), (kernel, 7)]) {
                        let op = step.op(kernel, call);
                        op.validate().unwrap();
                        assert!(cost(&op, case, device).bytes > 0, "{kernel:?} of {case:?}");
                    }
                }
            });
        }
    }

    #[test]
    fn costs_are_those_of_the_shape() {
        with_rig("tiny-qwen2", (&[3, 128], &[128, 200]), |plan, rig, device| {
            let of = |kernel, case: &Case| cost(&rig.step(case).unwrap().op(kernel, 0), case, device);
            let [decode, _, first_chunk, next_chunk] = plan.cases[..] else { panic!("{plan:?}") };
            let qkv = of(MeasuredOp::Qkv, &decode);
            // 128 queries, 64 keys and 64 values of 128 weights, 4 bits and a 64th of two bf16 each.
            assert_eq!(qkv.multiply_adds, 3 * 256 * 128);
            assert_eq!(qkv.bytes, 256 * 128 * 9 / 16 + 4 * (256 + 128 + 3 * (128 + 256)));
            let gated = of(MeasuredOp::GateUp, &decode);
            assert_eq!(gated.multiply_adds, 3 * 2 * 256 * 128);
            assert_eq!(gated.bytes, 2 * 256 * 128 * 9 / 16 + 4 * (128 + 3 * (128 + 256)));
            let attend = of(MeasuredOp::Attend, &decode);
            // 4 heads of 32: scores and values of 128 tokens each.
            assert_eq!(attend.multiply_adds, 3 * 2 * 128 * 128);
            assert_eq!(attend.bytes, 3 * (512 * 128 + 4 * (256 + 32 + 128)));
            assert_eq!(of(MeasuredOp::Attend, &first_chunk).multiply_adds, 2 * 128 * (1..=128).sum::<u64>());
            assert_eq!(of(MeasuredOp::Attend, &next_chunk).multiply_adds, 2 * 128 * (73..=200).sum::<u64>());
            assert_eq!(of(MeasuredOp::LmHead, &first_chunk).multiply_adds, 512 * 128);
        });
    }

    #[test]
    fn experts_cost_what_is_chosen_of_them() {
        with_rig("tiny-qwen3_moe", (&[1, 128], &[128]), |plan, rig, device| {
            let of = |kernel, case: &Case| cost(&rig.step(case).unwrap().op(kernel, 0), case, device);
            // Two of eight experts, 128 wide, and all of them.
            for (case, rows, experts) in [(&plan.cases[0], 1, 2), (&plan.cases[1], 128, 8)] {
                let gated = of(MeasuredOp::ExpertGateUp, case);
                assert_eq!(gated.multiply_adds, rows * 2 * 2 * 128 * 128);
                let values = 128 + rows * 128 + rows * 2 * 128 + rows * 2;
                assert_eq!(gated.bytes, experts * 2 * 128 * 128 * 9 / 16 + 4 * values);
            }
            assert_eq!((MeasuredOp::ExpertDown.calls(plan), MeasuredOp::Down.calls(plan)), (2, 0));
        });
    }
}
