//! Sampling against a plain computation that sorts.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_cpu::{CpuDevice, CpuOptions, Isa};
use mlx_serving_device::ops::{LogitBias, NO_SLOT, Sample, SampleParams};
use mlx_serving_device::{Buffer, Device, Op, Storage};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const GREEDY: SampleParams = SampleParams {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition: 1.0,
    presence: 0.0,
    frequency: 0.0,
    seed_low: 1,
    seed_high: 2,
    position: 3,
    slot: NO_SLOT,
    bias_first: 0,
    bias_count: 0,
};

fn upload<T: bytemuck::NoUninit>(device: &CpuDevice, values: &[T]) -> Buffer {
    let buffer = device.new_buffer(size_of_val(values).max(4) as u64, Storage::Shared).unwrap();
    buffer.write(0, values).unwrap();
    buffer
}

/// Samples one token for each of `params` from its row of `logits`; the tokens and the history afterwards.
fn sample(
    device: &CpuDevice,
    logits: &[f32],
    params: &[SampleParams],
    biases: &[LogitBias],
    history: &[u32],
) -> (Vec<u32>, Vec<u32>) {
    let out = upload(device, &vec![7u32; params.len()]);
    let kept = upload(device, history);
    let op = Sample {
        logits: upload(device, logits),
        vocab: logits.len() / params.len(),
        rows: params.len(),
        params: upload(device, params),
        biases: upload(device, biases),
        history: (!history.is_empty()).then(|| kept.clone()),
        out: out.clone(),
    };
    let queue = device.compute_queue();
    let mut encoder = queue.encoder().unwrap();
    encoder.record(Op::Sample(op)).unwrap();
    queue.submit(encoder.finish().unwrap(), &[], None).unwrap().wait(Duration::from_secs(60)).unwrap();
    (out.to_vec().unwrap(), kept.to_vec().unwrap()[..history.len()].to_vec())
}

/// The tokens that pass the filters, by sorting.
fn survivors(logits: &[f32], params: &SampleParams) -> Vec<u32> {
    let z: Vec<f32> = logits.iter().map(|z| z / params.temperature).collect();
    let mut order: Vec<u32> = (0..z.len() as u32).collect();
    order.sort_by(|&a, &b| z[b as usize].total_cmp(&z[a as usize]).then(a.cmp(&b)));
    let weight = |token: u32| f64::from(z[token as usize] - z[order[0] as usize]).exp();
    let total: f64 = order.iter().map(|&token| weight(token)).sum();
    let mut before = 0.0;
    let keeps = |&(rank, &token): &(usize, &u32)| {
        let keep = (params.top_k == 0 || rank < params.top_k as usize)
            && (params.top_p >= 1.0 || before < f64::from(params.top_p) * total)
            && weight(token) >= f64::from(params.min_p);
        before += weight(token);
        keep
    };
    order.iter().enumerate().filter(keeps).map(|(_, &token)| token).collect()
}

fn devices() -> Vec<Arc<CpuDevice>> {
    let of = |isa| (1..=3).map(move |threads| (isa, threads));
    let make = |(isa, threads)| {
        CpuDevice::new(&CpuOptions { threads: Some(threads), isa: Some(isa), ..CpuOptions::default() }).unwrap()
    };
    Isa::available().into_iter().flat_map(of).map(make).collect()
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    for device in devices() {
        let mut logits = vec![-1.0; 20_000];
        (logits[9_000], logits[17_000], logits[17]) = (4.0, 4.0, f32::NAN);
        assert_eq!(sample(&device, &logits, &[GREEDY], &[], &[]).0, [9_000]);
        let none = [f32::NAN, f32::NEG_INFINITY];
        assert_eq!(sample(&device, &none, &[GREEDY], &[], &[]).0, [u32::MAX]);
        let drawn = SampleParams { temperature: 1.0, top_k: 1, ..GREEDY };
        assert_eq!(sample(&device, &none, &[drawn], &[], &[]).0, [u32::MAX]);
    }
}

#[test]
fn penalties_and_biases_come_before_the_choice() {
    const PROMPT: u32 = 1 << 31;
    let device = &devices()[0];
    let logits = [3.0, 2.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0];
    let choose = |params: SampleParams, history: [u32; 8], biases: &[LogitBias]| {
        sample(device, &logits, &[SampleParams { slot: 0, ..params }], biases, &history)
    };
    let (token, history) = choose(GREEDY, [0; 8], &[]);
    assert_eq!((token[0], history[0]), (0, 1), "the choice is noted");
    let repetition = SampleParams { repetition: 2.0, ..GREEDY };
    assert_eq!(choose(repetition, [PROMPT, 0, 0, 0, 0, 0, 0, 0], &[]).0, [1]);
    let presence = SampleParams { presence: 1.5, ..GREEDY };
    assert_eq!(choose(presence, [PROMPT, 0, 0, 0, 0, 0, 0, 0], &[]).0, [0], "prompts are not counted");
    assert_eq!(choose(presence, [1, 0, 0, 0, 0, 0, 0, 0], &[]).0, [1]);
    let frequency = SampleParams { frequency: 0.6, ..GREEDY };
    assert_eq!(choose(frequency, [2, 1, 0, 0, 0, 0, 0, 0], &[]).0, [0]);
    assert_eq!(choose(frequency, [4, 1, 0, 0, 0, 0, 0, 0], &[]).0, [1]);
    let biased = SampleParams { bias_first: 1, bias_count: 2, ..GREEDY };
    let bias = |token, bias| LogitBias { token, bias };
    let biases = [bias(5, 99.0), bias(0, f32::NEG_INFINITY), bias(3, 4.0)];
    assert_eq!(choose(biased, [0; 8], &biases).0, [3]);
}

#[test]
fn draws_follow_the_distribution() {
    let device = &devices()[0];
    let logits = [0.0f32, 1.0, 2.0, f32::NEG_INFINITY, -1.0];
    const DRAWS: usize = 40_000;
    let all: Vec<f32> = logits.iter().copied().cycle().take(DRAWS * logits.len()).collect();
    let params: Vec<_> =
        (0..DRAWS as u32).map(|position| SampleParams { temperature: 0.8, position, ..GREEDY }).collect();
    let mut counts = BTreeMap::new();
    for token in sample(device, &all, &params, &[], &[]).0 {
        *counts.entry(token).or_insert(0usize) += 1;
    }
    let weights: Vec<f64> = logits.iter().map(|z| f64::from(z / 0.8).exp()).collect();
    let total: f64 = weights.iter().sum();
    for (token, weight) in weights.iter().enumerate() {
        let (share, expected) = (counts.get(&(token as u32)).map_or(0.0, |n| *n as f64 / DRAWS as f64), weight / total);
        // Five standard deviations.
        let tolerance = 5.0 * (expected * (1.0 - expected) / DRAWS as f64).sqrt();
        assert!((share - expected).abs() <= tolerance, "token {token}: {share} for {expected}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_device_draws_the_same_survivor(
        seed: u32,
        vocab in prop::sample::select(vec![1usize, 50, 1000, 17_000]),
        spread in 0.0f32..12.0,
        steps in prop::sample::select(vec![3.0f32, 1e9]),
        top_k in prop::sample::select(vec![0u32, 1, 2, 40, 5000]),
        top_p in prop::sample::select(vec![1.0f32, 0.05, 0.5, 0.9, 0.999]),
        min_p in prop::sample::select(vec![0.0f32, 0.05, 0.7, 1.0]),
    ) {
        // Few steps make ties.
        let mut state = seed | 1;
        let logits: Vec<f32> = (0..vocab).map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state as f32 / u32::MAX as f32 * steps).round() / steps * spread
        }).collect();
        let params = SampleParams { temperature: 0.7, top_k, top_p, min_p, position: seed, ..GREEDY };
        let good = survivors(&logits, &params);
        let mut tokens: Vec<u32> = Vec::new();
        for device in devices() {
            // The same row among others, so that no draw depends on its neighbours.
            let three: Vec<f32> = logits.repeat(3);
            let rows = [GREEDY, params, SampleParams { temperature: 2.0, ..GREEDY }];
            tokens.push(sample(&device, &three, &rows, &[], &[]).0[1]);
            tokens.push(sample(&device, &logits, &[params], &[], &[]).0[0]);
        }
        prop_assert!(good.contains(&tokens[0]), "{} of {good:?}", tokens[0]);
        prop_assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    }
}
