//! Ops on device memory: loads what the oracle takes, runs it, stores what it gives.

use super::layout::unpack;
use super::memory::{load, load_all, store};
use crate::ops::{
    Attend, Copy, Embed, Epilogue, Experts, Linear, NO_MASK_ROW, Norm, Normalize, Observe, RopeAngles, Route, Sample,
    SampleParams, Scoring, Stacks,
};
use crate::oracle::{self, Finish, Matrix};
use crate::{Op, Result};
use std::collections::BTreeMap;

/// Runs an op.
pub(super) fn run(op: &Op) -> Result<()> {
    match op {
        Op::Embed(op) => embed(op),
        Op::RopeAngles(op) => rope(op),
        Op::Linear(op) => linear(op),
        Op::Normalize(op) => normalize(op),
        Op::Route(op) => route(op),
        Op::Experts(op) => experts(op),
        Op::Attend(op) => attend(op),
        Op::Observe(op) => observe(op),
        Op::Sample(op) => sample(op),
        Op::Copy(op) => copy(op),
    }
}

/// Runs an op that computes nothing: copies copy, sampling takes [`scripted_token`].
pub(super) fn pretend(op: &Op) -> Result<()> {
    match op {
        Op::Copy(op) => copy(op),
        Op::Sample(op) => {
            let (params, masks): (Vec<SampleParams>, _) = (load(&op.params, op.rows)?, masks(op)?);
            let chosen = |params: &SampleParams| {
                let token = scripted_token(params, op.vocab);
                let mask = masks.chunks_exact(Sample::mask_words(op.vocab)).nth(params.mask_row as usize);
                mask.filter(|_| params.mask_row != NO_MASK_ROW)
                    .map_or(token, |mask| next_allowed(token, mask, op.vocab))
            };
            store(&op.out, &params.iter().map(chosen).collect::<Vec<_>>())
        }
        _ => Ok(()),
    }
}

/// The token that sampling writes on a device that computes nothing: it depends on seed, position and history row.
pub fn scripted_token(params: &SampleParams, vocab: usize) -> u32 {
    let [word, _] = oracle::threefry([params.seed_low, params.seed_high], [params.position, params.history_row]);
    (u64::from(word) % vocab.max(1) as u64) as u32
}

/// The first token from `token` on that a mask allows, in a circle: what sampling writes there for a row with a mask. `u32::MAX` for none.
pub fn next_allowed(token: u32, mask: &[u32], vocab: usize) -> u32 {
    let circle = (token..vocab as u32).chain(0..token);
    { circle }.find(|&t| mask[t as usize / 32] >> (t % 32) & 1 == 1).unwrap_or(u32::MAX)
}

fn embed(op: &Embed) -> Result<()> {
    let table = op.table.iter().map(unpack).collect::<Result<Vec<_>>>()?;
    let sampled = op.sampled.as_ref().map(load_all).transpose()?;
    store(&op.out, &oracle::embed(&table, &load::<u32>(&op.tokens, op.rows)?, sampled.as_deref(), op.scale)?)
}

fn rope(op: &RopeAngles) -> Result<()> {
    let (positions, inv_freq) = (load(&op.positions, op.rows)?, load(&op.inv_freq, op.pairs)?);
    store(&op.out, &oracle::rope_angles(&positions, &inv_freq, op.scale, op.growth))
}

/// A norm's weight and eps.
fn load_norm(norm: &Option<Norm>, width: usize) -> Result<Option<(Vec<f32>, f32)>> {
    norm.as_ref().map(|norm| Ok((load(&norm.weight, width)?, norm.eps))).transpose()
}

fn as_norm(norm: &Option<(Vec<f32>, f32)>) -> Option<oracle::Norm<'_>> {
    norm.as_ref().map(|(weight, eps)| oracle::Norm { weight, eps: *eps })
}

fn linear(op: &Linear) -> Result<()> {
    let gather = op.gather.as_ref().map(|gather| load::<u32>(gather, op.rows)).transpose()?;
    let input = if gather.is_some() { load_all(&op.input)? } else { load::<f32>(&op.input, op.rows * op.cols())? };
    let norm = load_norm(&op.norm, op.cols())?;
    let weights = op.projections.iter().map(|p| unpack(&p.weight)).collect::<Result<Vec<Matrix>>>()?;
    let load_bias = |p: &crate::ops::Projection| p.bias.as_ref().map(|b| load(b, p.weight.spec.rows)).transpose();
    let biases = op.projections.iter().map(load_bias).collect::<Result<Vec<Option<Vec<f32>>>>>()?;
    let projections: Vec<_> = weights
        .iter()
        .zip(&biases)
        .map(|(weight, bias)| oracle::Projection { weight, bias: bias.as_deref() })
        .collect();
    let (finish, to, features) = match &op.epilogue {
        Epilogue::Store(out) => (Finish::Store, out, op.features()),
        Epilogue::Add(out) => (Finish::Add, out, op.features()),
        Epilogue::Gated(activation, out) => (Finish::Gated(*activation), out, op.features() / 2),
    };
    let mut out: Vec<f32> = load(to, op.rows * features)?;
    let gather = gather.as_deref();
    let op = oracle::Linear {
        input: &input,
        gather,
        rows: op.rows,
        norm: as_norm(&norm),
        projections: &projections,
        finish,
    };
    oracle::linear(&op, &mut out)?;
    store(to, &out)
}

fn normalize(op: &Normalize) -> Result<()> {
    let weight = load(&op.norm.weight, op.width)?;
    let norm = oracle::Norm { weight: &weight, eps: op.norm.eps };
    let naive = oracle::Normalize { stride: op.stride, columns: op.first..op.first + op.width, norm };
    let mut input = load(&op.input, op.rows * op.stride)?;
    match &op.target {
        None => {
            oracle::normalize(&naive, &mut input, None);
            store(&op.input, &input)
        }
        Some(to) => {
            let mut target = load(to, op.rows * op.width)?;
            oracle::normalize(&naive, &mut input, Some(&mut target));
            store(to, &target)
        }
    }
}

fn route(op: &Route) -> Result<()> {
    let bias: Vec<f32> = match &op.scoring {
        Scoring::Softmax => Vec::new(),
        Scoring::Sigmoid { bias } => load(bias, op.experts)?,
    };
    let scoring = match &op.scoring {
        Scoring::Softmax => oracle::Scoring::Softmax,
        Scoring::Sigmoid { .. } => oracle::Scoring::Sigmoid(&bias),
    };
    let naive = oracle::Route { slots: op.slots, scoring, renormalize: op.renormalize, factor: op.factor };
    let logits: Vec<f32> = load(&op.logits, op.rows * op.experts)?;
    let (chosen, weights): (Vec<_>, Vec<_>) = logits.chunks_exact(op.experts).map(|row| naive.row(row)).unzip();
    store(&op.chosen, &chosen.concat())?;
    store(&op.weights, &weights.concat())
}

fn experts(op: &Experts) -> Result<()> {
    let (pairs, norm) = (op.rows * op.slots, load_norm(&op.norm, op.cols())?);
    let run = |inputs: usize, stacks: oracle::Stacks<'_>, to: &crate::Buffer, outputs: usize| {
        let (input, chosen) = (load::<f32>(&op.input, inputs * op.cols())?, load::<u32>(&op.chosen, pairs)?);
        let (slots, experts) = (op.slots, op.experts);
        let naive = oracle::Experts { input: &input, chosen: &chosen, slots, experts, norm: as_norm(&norm), stacks };
        let mut out = load(to, outputs * op.features())?;
        oracle::experts(&naive, &mut out)?;
        store(to, &out)
    };
    match &op.stacks {
        Stacks::Gated { gate, up, activation, out } => {
            let (gate, up) = (unpack(gate)?, unpack(up)?);
            run(op.rows, oracle::Stacks::Gated(*activation, [&gate, &up]), out, pairs)
        }
        Stacks::Sum { down, weights, out } => {
            let (down, weights) = (unpack(down)?, load::<f32>(weights, pairs)?);
            run(pairs, oracle::Stacks::Sum(&down, &weights), out, op.rows)
        }
    }
}

/// The oracle sees a small cache of the blocks in use only, under numbers of their own.
fn attend(op: &Attend) -> Result<()> {
    let batch = &op.batch;
    let spans = load(&batch.spans, batch.sequences)?;
    let mut tables: Vec<u32> = load_all(&batch.block_tables)?;
    let used = used_blocks(op, &spans, &tables);
    tables.iter_mut().for_each(|block| *block = used.get(block).copied().unwrap_or(u32::MAX));
    let values = oracle::kv_block_values(&op.kv);
    let place = |block: u32| {
        let at = 4 * values as u64 * u64::from(block);
        op.cache.slice(at..at + 4 * values as u64)
    };
    let mut cache = Vec::with_capacity(used.len() * values);
    for &block in used.keys() {
        cache.extend(load::<f32>(&place(block)?, values)?);
    }
    let (q_norm, k_norm) = (load_norm(&op.q_norm, op.kv.head_dim)?, load_norm(&op.k_norm, op.kv.head_dim)?);
    let naive = oracle::Attend {
        qkv: &load::<f32>(&op.qkv, batch.rows * (op.heads + 2 * op.kv.heads) * op.kv.head_dim)?,
        heads: op.heads,
        kv: op.kv,
        q_norm: as_norm(&q_norm),
        k_norm: as_norm(&k_norm),
        query_angles: &load::<f32>(&op.query_angles, batch.rows * op.pairs * 2)?,
        key_angles: &load::<f32>(&op.key_angles, batch.rows * op.pairs * 2)?,
        pairs: op.pairs,
        interleaved: op.interleaved,
        spans: &spans,
        block_tables: &tables,
        max_context: batch.max_context,
        scale: op.scale,
        window: op.window,
    };
    let mut out = vec![0.0; batch.rows * op.heads * op.kv.head_dim];
    oracle::attend(&naive, &mut cache, &mut out)?;
    for (&block, block_values) in used.keys().zip(cache.chunks_exact(values)) {
        store(&place(block)?, block_values)?;
    }
    store(&op.out, &out)
}

/// The blocks of the cache that the spans use, in rising order, each with its number among them.
fn used_blocks(op: &Attend, spans: &[crate::ops::Span], tables: &[u32]) -> BTreeMap<u32, u32> {
    let blocks = op.cache.len() / (4 * oracle::kv_block_values(&op.kv) as u64);
    let runs = spans.iter().filter_map(|span| {
        let used = (span.start as usize + span.rows as usize).div_ceil(op.kv.block_tokens);
        tables.get(span.table as usize..span.table as usize + used)
    });
    let good = runs.flatten().filter(|block| u64::from(**block) < blocks);
    let mut used: BTreeMap<u32, u32> = good.map(|block| (*block, 0)).collect();
    used.values_mut().zip(0..).for_each(|(number, i)| *number = i);
    used
}

fn observe(op: &Observe) -> Result<()> {
    let row = 4 * op.vocab as u64;
    let place = op.history.slice(op.history_row as u64 * row..(op.history_row as u64 + 1) * row)?;
    let mut row = vec![0; op.vocab];
    oracle::observe(&mut row, &load::<u32>(&op.tokens, op.count)?, op.prompt)?;
    store(&place, &row)
}

fn sample(op: &Sample) -> Result<()> {
    let mut history = op.history.as_ref().map_or_else(|| Ok(Vec::new()), load_all::<u32>)?;
    let logits: Vec<f32> = load(&op.logits, op.rows * op.vocab)?;
    let params: Vec<SampleParams> = load(&op.params, op.rows)?;
    let tokens = oracle::sample(&logits, &params, &load_all(&op.biases)?, &masks(op)?, &mut history)?;
    if let Some(to) = &op.history {
        store(to, &history)?;
    }
    store(&op.out, &tokens)
}

fn masks(op: &Sample) -> Result<Vec<u32>> {
    op.masks.as_ref().map_or_else(|| Ok(Vec::new()), load_all)
}

fn copy(op: &Copy) -> Result<()> {
    store::<u8>(&op.to, &load_all(&op.from)?)
}

/// Flips the bits of one byte of a copy's destination.
pub(super) fn corrupt(op: &Copy) -> Result<()> {
    let place = op.to.slice(op.to.len() / 2..op.to.len())?;
    let byte: Vec<u8> = load(&place, place.len().min(1) as usize)?;
    store(&place, &byte.iter().map(|byte| !byte).collect::<Vec<_>>())
}
