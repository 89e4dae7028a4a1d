//! Whole models through the Metal backend on the simulator, against mlx-lm's.

// The bindings link to the simulator's symbols only if the crate is named.
extern crate metal_sim;

use metal_sim::faults;
use mlx_serving_device::{Arithmetic, Device};
use mlx_serving_metal::{MetalDevice, MetalOptions};
use mlx_serving_whole_model::{
    company_changes_no_answer, embeddings, engines_share_a_device, greedy_answers, greedy_answers_of_architectures,
    logits,
};
use std::sync::Arc;

fn metal(arithmetic: Arithmetic) -> Arc<dyn Device> {
    MetalDevice::open(&MetalOptions { arithmetic, ..MetalOptions::default() }).expect("the simulator has a device")
}

#[test]
fn exact_logits_are_mlx_lms() {
    faults::reset();
    assert!(logits(|| metal(Arithmetic::Exact), 1e-4, |_| true) >= 50);
}

/// Runs a model of each architecture, and one with weights in every mode.
#[test]
fn fast_logits_are_near_mlx_lms() {
    faults::reset();
    let each = [
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "olmo2",
        "granite",
        "phi3",
        "glm4",
        "gemma3",
        "ministral3",
        "qwen3_moe",
        "glm4_moe",
        "llama-mixed-modes",
    ];
    assert_eq!(logits(|| metal(Arithmetic::Fast), 5e-2, |name| each.contains(&name)), each.len());
}

#[test]
fn greedy_answers_of_architectures_are_mlx_lms() {
    faults::reset();
    assert!(greedy_answers_of_architectures(|| metal(Arithmetic::Exact), &["none"]) >= 4);
}

#[test]
fn embeddings_are_mlx_lms() {
    faults::reset();
    embeddings(|| metal(Arithmetic::Exact), 1e-5);
}

/// Runs with matrix units, for which a prompt's rows alone are too few.
#[test]
fn company_changes_no_fast_answer() {
    faults::reset();
    faults::set_seed(13);
    company_changes_no_answer(|| metal(Arithmetic::Fast), 8, 12);
}

#[test]
fn two_engines_on_one_device_answer_as_one_alone() {
    faults::reset();
    engines_share_a_device(|| metal(Arithmetic::Fast), 4, 8);
}

/// The bundled model with some optimizations on: the tokens are mlx-lm's, and so those of the CPU's exact mode; nothing is left of
/// the device at the end.
fn same_answers(selection: &str, unified: bool, prompts: usize, tokens: usize) {
    faults::reset();
    faults::set_unified_memory(unified);
    faults::set_seed(11);
    greedy_answers(|| metal(Arithmetic::Exact), &[selection], prompts, tokens);
    metal_sim::drain(std::time::Duration::from_secs(60));
    let leaks = metal_sim::leaks();
    assert!(leaks.is_empty(), "{leaks:?}");
}

#[test]
fn answers_without_optimizations() {
    same_answers("none", true, 20, 64);
}

#[test]
fn answers_with_the_memory_pool() {
    same_answers("memory_pool", true, 4, 16);
}

#[test]
fn answers_with_the_blit_queue() {
    same_answers("blit_queue", true, 4, 16);
}

#[test]
fn answers_with_the_command_buffer_ring() {
    same_answers("command_buffer_ring", true, 4, 16);
}

#[test]
fn answers_with_all_three() {
    same_answers("all", true, 20, 64);
}

#[test]
fn answers_with_all_three_and_memory_of_its_own() {
    same_answers("all", false, 4, 16);
}
