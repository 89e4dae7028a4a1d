use crate::Launch;
use crate::layout::Packed;
use crate::linear::{GELU, HAS_NORM, check_gated};
use crate::params::{ExpertsSumParams, GatherCheckParams, LinearParams};
use crate::variant::{Tile, Variant};
use bytemuck::bytes_of;
use mlx_serving_device::ops::{Activation, Experts, Stacks};
use mlx_serving_device::{Buffer, Result, Weight};

/// Makes the launches: a check of the choice, the products of each pair of a row and a slot by itself, and for a sum their sum.
pub(crate) fn lower(op: &Experts, scratch: &mut dyn FnMut(u64) -> Result<Buffer>) -> Result<Vec<Launch>> {
    let (pairs, features) = (op.rows * op.slots, op.features());
    let check = Launch {
        kernel: Variant::GatherCheck.kernel(),
        bindings: vec![op.chosen.clone()],
        groups: [pairs.div_ceil(64) as u32, 1, 1],
        work: pairs as u64,
        params: bytes_of(&GatherCheckParams { rows: pairs as u32, limit: op.experts as u32, code: 10 }).into(),
    };
    match &op.stacks {
        Stacks::Gated { gate, up, out, .. } => {
            check_gated(&gate.spec, &up.spec)?;
            Ok(vec![check, products(op, &[gate, up], out)?])
        }
        Stacks::Sum { down, weights, out } => {
            let own = scratch(4 * (pairs * features) as u64)?;
            let sum = Launch {
                kernel: Variant::ExpertsSum.kernel(),
                bindings: vec![own.clone(), weights.clone(), out.clone()],
                groups: [features.div_ceil(128) as u32, op.rows as u32, 1],
                work: (pairs * features) as u64,
                params: bytes_of(&ExpertsSumParams { slots: op.slots as u32, features: features as u32 }).into(),
            };
            Ok(vec![check, products(op, &[down], &own)?, sum])
        }
    }
}

/// Products of each pair with its expert's rows of the stacks.
fn products(op: &Experts, stacks: &[&Weight], out: &Buffer) -> Result<Launch> {
    let (spec, pairs, features) = (&stacks[0].spec, op.rows * op.slots, op.features());
    let packed = Packed::new(spec)?;
    let gelu = matches!(op.stacks, Stacks::Gated { activation: Activation::GeluTanh, .. });
    let flags = if op.norm.is_some() { HAS_NORM } else { 0 } | if gelu { GELU } else { 0 };
    let params = LinearParams {
        rows: pairs as u32,
        features: features as u32,
        cols: spec.cols as u32,
        chunks: packed.chunks,
        block_words: packed.block_words,
        group_shift: packed.group_shift,
        kind: packed.kind,
        out_stride: features as u32,
        out_first: 0,
        flags,
        eps: op.norm.as_ref().map_or(0.0, |norm| norm.eps),
        slots: op.slots as u32,
    };
    let mut bindings = vec![
        op.input.clone(),
        op.norm.as_ref().map_or_else(|| op.input.clone(), |norm| norm.weight.clone()),
        op.chosen.clone(),
        out.clone(),
    ];
    // Experts have no biases: what is bound there is not read.
    bindings.extend(stacks.iter().flat_map(|stack| [stack.buffer.clone(), op.input.clone()]));
    let gated = stacks.len() == 2;
    Ok(Launch {
        kernel: Variant::LinearFew { bits: packed.bits, gated, tile: Tile::Expert }.kernel(),
        bindings,
        groups: [op.slots as u32, features.div_ceil(16) as u32, op.rows as u32],
        work: (pairs * features * spec.cols * stacks.len()) as u64,
        params: bytes_of(&params).into(),
    })
}
