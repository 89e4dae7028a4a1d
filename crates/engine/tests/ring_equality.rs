//! Switching the ring on or off, or changing its size, never changes an answer.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Answer, read, ring, ring_stats, start, tokenizer};
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_engine::{Engine, FinishReason, Options, Request, Sampling, Stream};
use mlx_serving_metal_layer::RingStats;
use mlx_serving_metal_layer::config::MetalOptimizations;

const PROMPTS: [&str; 6] = [
    "Ownership is a set of rules that govern how a Rust program manages memory.",
    "Ownership is a set of rules that govern how a Rust program manages memory. The borrow checker",
    "fn main() {\n    let mut s = String::from(\"hello\");",
    "What Is Ownership?",
    "Traits",
    "The enum `Option<T>` encodes the common scenario in which a value could be something or it could be nothing, and",
];

/// Everything that a request may ask for, in turn.
fn requests() -> Vec<Request> {
    let tokenizer = tokenizer();
    let greedy = Sampling::default;
    (0..30u64)
        .map(|i| {
            let sampling = match i % 6 {
                0 => greedy(),
                1 => Sampling { temperature: 0.9, seed: Some(i), ..greedy() },
                2 => Sampling { temperature: 0.7, top_p: 0.9, top_k: 40, seed: Some(7), ..greedy() },
                3 => Sampling { repetition_penalty: 1.3, frequency_penalty: 0.4, ..greedy() },
                4 => Sampling { temperature: 1.2, min_p: 0.05, presence_penalty: 0.8, seed: Some(i), ..greedy() },
                _ => Sampling { logit_bias: vec![(17, 2.5), (300, -80.0)], ..greedy() },
            };
            Request {
                prompt: tokenizer.encode(PROMPTS[i as usize % PROMPTS.len()], false).unwrap(),
                sampling,
                max_tokens: Some(14 + 7 * (i as usize % 5)),
                stop: if i % 4 == 1 { vec![" the".into(), "\n\n".into()] } else { Vec::new() },
                ignore_eos: i % 3 == 0,
                ..Request::default()
            }
        })
        .collect()
}

/// So few blocks that sequences are preempted, so few rows that prompts are cut.
fn tight() -> Options {
    Options { max_sequences: 6, max_batch_rows: 24, kv_tokens: 16 * 10, ..Options::default() }
}

fn engine(config: &MetalOptimizations, options: &Options) -> Engine {
    let device = CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
    start(device, config, options).unwrap()
}

fn answers(engine: &Engine, requests: Vec<Request>) -> Vec<Answer> {
    let streams: Vec<Stream> = requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
    streams.into_iter().map(|stream| read(stream).unwrap()).collect()
}

/// Runs the requests without the ring, then with it, in so little memory that sequences are preempted.
fn same_with_a_ring_of(ring_size: usize, requests: &[Request]) -> (Vec<Answer>, RingStats) {
    let plain = engine(&ring(1), &tight());
    let expected = answers(&plain, requests.to_vec());
    let ringed = engine(&ring(ring_size), &tight());
    for (i, (answer, expected)) in answers(&ringed, requests.to_vec()).iter().zip(&expected).enumerate() {
        assert_eq!(answer, expected, "request {i}, ring of {ring_size}");
    }
    for engine in [&plain, &ringed] {
        assert!(engine.metrics().preemptions.get() > 0, "the load preempts nobody");
    }
    let stats = ring_stats(&ringed);
    assert!(stats.rotations > 10, "{stats:?}");
    (expected, stats)
}

#[test]
fn answers_that_may_stop_at_any_token_are_the_same() {
    let (answers, stats) = same_with_a_ring_of(3, &requests());
    for reason in [FinishReason::Stop, FinishReason::Length] {
        assert!(answers.iter().any(|a| a.reason == reason), "no answer ends by {reason:?}");
    }
    assert!(stats.discarded_steps > 0, "{stats:?}");
}

#[test]
fn answers_of_known_length_are_the_same_with_more_steps_in_flight() {
    let mut requests = requests();
    requests.iter_mut().for_each(|r| (r.ignore_eos, r.stop) = (true, Vec::new()));
    let (_, stats) = same_with_a_ring_of(4, &requests);
    assert_eq!(stats.discarded_steps, 0, "{stats:?}");
}

#[test]
fn a_stop_costs_at_most_one_row_in_vain() {
    let mut requests = requests();
    requests.iter_mut().for_each(|r| r.ignore_eos = false);
    let count = requests.len() as u64;
    let engine = engine(&ring(8), &Options { max_sequences: 30, ..Options::default() });
    let stopped = answers(&engine, requests).iter().filter(|a| a.reason == FinishReason::Stop).count() as u64;
    let discarded = ring_stats(&engine).discarded_steps;
    assert!(stopped > 0 && stopped < count);
    assert!(discarded > 0 && discarded <= stopped, "{discarded} rows in vain for {stopped} stops");
}

#[test]
fn an_answer_whose_length_is_known_costs_none() {
    let engine = engine(&ring(3), &Options::default());
    answers(&engine, (0..4).map(|seed| common::endless(seed, 40)).collect());
    assert_eq!(ring_stats(&engine).discarded_steps, 0);
}

#[test]
fn neighbours_that_go_away_or_ask_for_logprobs_change_nothing() {
    let expected = answers(&engine(&ring(1), &tight()), requests());
    let engine = engine(&ring(3), &tight());
    let mut streams = Vec::new();
    for (i, request) in requests().into_iter().enumerate() {
        let disturbing = Request { logprobs: (i % 3 == 0).then_some(2), ..common::endless(i as u64, 60) };
        let mut neighbour = engine.submit(disturbing).unwrap();
        streams.push(engine.submit(request).unwrap());
        if i % 2 == 0 {
            // It leaves while it is computed.
            std::thread::spawn(move || (0..i).for_each(|_| drop(neighbour.next_blocking())));
        }
    }
    for (i, (stream, expected)) in streams.into_iter().zip(&expected).enumerate() {
        assert_eq!(&read(stream).unwrap(), expected, "request {i}");
    }
    let stats = ring_stats(&engine);
    assert_eq!(stats.total_acquired, stats.total_released + stats.in_flight_count as u64);
}
