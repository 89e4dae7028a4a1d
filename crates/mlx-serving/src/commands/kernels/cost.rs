//! What an op must move and compute, whatever the kernel does.

use super::plan::Case;
use mlx_serving_device::ops::{Attend, Epilogue, Linear};
use mlx_serving_device::{Op, Weight};

/// Bytes of an f32, and of a u32.
const WORD: u64 = 4;

/// Of one call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Bytes read and written: weights as a checkpoint has them, the KV cache as the device has it, activations.
    pub bytes: u64,
    pub multiply_adds: u64,
}

/// Costs of `op` in a step; `kv_token` is the bytes of a token's keys and values in one layer.
pub(super) fn cost(op: &Op, case: &Case, kv_token: u64) -> Cost {
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
        Op::Attend(op) => attend(op, case, kv_token),
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
