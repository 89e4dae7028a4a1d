//! Switching the ring on or off, or changing its size, never changes an answer.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Answer, answers, on_cpu as engine, read, requests, ring, ring_stats, tight};
use mlx_serving_engine::{FinishReason, Options, Request};
use mlx_serving_metal_layer::RingStats;

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
fn a_stop_costs_at_most_one_discarded_row() {
    let mut requests = requests();
    requests.iter_mut().for_each(|r| r.ignore_eos = false);
    let count = requests.len() as u64;
    let engine = engine(&ring(8), &Options { max_sequences: 30, ..Options::default() });
    let stopped = answers(&engine, requests).iter().filter(|a| a.reason == FinishReason::Stop).count() as u64;
    let discarded = ring_stats(&engine).discarded_steps;
    assert!(stopped > 0 && stopped < count);
    assert!(discarded > 0 && discarded <= stopped, "{discarded} rows discarded for {stopped} stops");
}

#[test]
fn an_answer_whose_length_is_known_costs_none() {
    let engine = engine(&ring(3), &Options::default());
    answers(&engine, (0..4).map(|seed| common::endless(seed, 40)).collect());
    assert_eq!(ring_stats(&engine).discarded_steps, 0);
}

#[test]
fn neighbors_that_go_away_or_ask_for_logprobs_change_nothing() {
    let expected = answers(&engine(&ring(1), &tight()), requests());
    let engine = engine(&ring(3), &tight());
    let mut streams = Vec::new();
    for (i, request) in requests().into_iter().enumerate() {
        let disturbing = Request { logprobs: (i % 3 == 0).then_some(2), ..common::endless(i as u64, 60) };
        let mut neighbor = engine.submit(disturbing).unwrap();
        streams.push(engine.submit(request).unwrap());
        if i % 2 == 0 {
            // It leaves while it is computed.
            std::thread::spawn(move || (0..i).for_each(|_| drop(neighbor.next_blocking())));
        }
    }
    for (i, (stream, expected)) in streams.into_iter().zip(&expected).enumerate() {
        assert_eq!(&read(stream).unwrap(), expected, "request {i}");
    }
    let stats = ring_stats(&engine);
    assert_eq!(stats.total_acquired, stats.total_released + stats.in_flight_count as u64);
}
