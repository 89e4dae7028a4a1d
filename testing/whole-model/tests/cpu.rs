//! The suite on the CPU backend.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_cpu::{CpuDevice, CpuOptions, Isa};
use mlx_serving_device::fake::{FakeDevice, FakeOptions};
use mlx_serving_device::{Arithmetic, Device};
use mlx_serving_whole_model::{
    SELECTIONS, company_changes_no_answer, company_changes_no_experts, embeddings, greedy_answers,
    greedy_answers_of_architectures, logits, sampled_answers,
};
use std::sync::Arc;

fn cpu(arithmetic: Arithmetic) -> Arc<dyn Device> {
    CpuDevice::new(&CpuOptions { arithmetic, threads: Some(2), ..CpuOptions::default() }).unwrap()
}

#[test]
fn exact_logits_are_mlx_lms() {
    assert!(logits(|| cpu(Arithmetic::Exact), 1e-4, |_| true) >= 50);
}

#[test]
fn fast_logits_are_near_mlx_lms() {
    logits(|| cpu(Arithmetic::Fast), 5e-2, |_| true);
}

/// The fake device runs the oracle: what backends are held to is itself held to mlx-lm. A discrete one, so that nothing on the way
/// takes private memory for the host's.
#[test]
fn the_oracles_logits_are_mlx_lms() {
    let discrete = FakeOptions { unified_memory: false, ..FakeOptions::default() };
    logits(|| FakeDevice::new(discrete).unwrap(), 1e-4, |_| true);
}

/// A device whose own memory the host does not reach: inputs, tokens and logits take the way over a copy.
#[test]
fn greedy_answers_of_a_discrete_device_are_mlx_lms() {
    let discrete = FakeOptions { unified_memory: false, ..FakeOptions::default() };
    greedy_answers(|| FakeDevice::new(discrete).unwrap(), &["none", "all"], 3, 6);
}

#[test]
fn greedy_answers_are_mlx_lms_whatever_is_on() {
    greedy_answers(|| cpu(Arithmetic::Exact), &SELECTIONS, 20, 64);
}

#[test]
fn greedy_answers_of_architectures_are_mlx_lms() {
    assert!(greedy_answers_of_architectures(|| cpu(Arithmetic::Exact), &["none", "all"]) >= 4);
}

#[test]
fn company_changes_no_fast_answer() {
    company_changes_no_answer(|| cpu(Arithmetic::Fast), 20, 32);
}

#[test]
fn company_and_optimizations_change_no_bit_of_experts() {
    for arithmetic in [Arithmetic::Exact, Arithmetic::Fast] {
        company_changes_no_experts(|| cpu(arithmetic), &SELECTIONS);
    }
}

#[test]
fn embeddings_are_mlx_lms() {
    embeddings(|| cpu(Arithmetic::Exact), 1e-5);
    embeddings(|| cpu(Arithmetic::Fast), 5e-2);
    let discrete = FakeOptions { unified_memory: false, ..FakeOptions::default() };
    embeddings(|| FakeDevice::new(discrete).unwrap(), 1e-5);
}

/// Runs on kernels that every processor has, so that the bits are those of any machine.
#[test]
fn sampled_answers_are_those_on_record() {
    let options = CpuOptions { arithmetic: Arithmetic::Exact, isa: Some(Isa::Portable), threads: Some(2) };
    let answers = sampled_answers(|| CpuDevice::new(&options).unwrap(), 200);
    insta::assert_snapshot!(answers.join("\n"));
}

#[test]
#[should_panic(expected = "further than")]
fn a_wrong_device_is_found_out() {
    // No arithmetic is this exact.
    logits(|| cpu(Arithmetic::Fast), 1e-9, |name| name.starts_with("qwen2"));
}
