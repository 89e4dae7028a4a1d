//! Whole models on the Vulkan backend, watched by the validation layer.

mod common;

use common::Watched;
use mlx_serving_device::{Arithmetic, Device};
use mlx_serving_vulkan::VulkanOptions;
use mlx_serving_whole_model::{
    SELECTIONS, company_changes_no_answer, embeddings, engines_share_a_device, greedy_answers,
    greedy_answers_of_architectures, logits,
};
use std::sync::Arc;

/// True if there is a device at all; each case opens its own.
fn there_is_vulkan() -> bool {
    Watched::open(VulkanOptions::default()).is_some()
}

fn device(arithmetic: Arithmetic) -> Arc<dyn Device> {
    let device = Watched::open(VulkanOptions { arithmetic, ..VulkanOptions::default() });
    Arc::new(device.expect("there was one a moment ago"))
}

#[test]
fn exact_logits_are_mlx_lms() {
    if there_is_vulkan() {
        logits(|| device(Arithmetic::Exact), 1e-4, |_| true);
    }
}

#[test]
fn fast_logits_are_near_mlx_lms() {
    if there_is_vulkan() {
        logits(|| device(Arithmetic::Fast), 5e-2, |_| true);
    }
}

#[test]
fn embeddings_are_mlx_lms() {
    if there_is_vulkan() {
        embeddings(|| device(Arithmetic::Exact), 1e-5);
    }
}

#[test]
fn greedy_answers_of_architectures_are_mlx_lms() {
    if there_is_vulkan() {
        greedy_answers_of_architectures(|| device(Arithmetic::Exact), &["none"]);
    }
}

fn with_matrix_units() -> Arc<dyn Device> {
    Arc::new(Watched::with_matrix_units().expect("there were some a moment ago"))
}

#[test]
fn logits_of_matrix_units_are_near_mlx_lms() {
    if Watched::with_matrix_units().is_some() {
        logits(with_matrix_units, 5e-2, |_| true);
    }
}

/// Alone, a prompt's rows are too few for them.
#[test]
fn company_changes_no_answer_of_matrix_units() {
    if Watched::with_matrix_units().is_some() {
        company_changes_no_answer(with_matrix_units, 8, 12);
    }
}

#[test]
fn company_changes_no_fast_answer() {
    if there_is_vulkan() {
        company_changes_no_answer(|| device(Arithmetic::Fast), 8, 12);
    }
}

#[test]
fn two_engines_on_one_device_answer_as_one_alone() {
    if there_is_vulkan() {
        engines_share_a_device(|| device(Arithmetic::Fast), 4, 8);
    }
}

#[test]
fn greedy_answers_are_mlx_lms_whatever_is_on() {
    if there_is_vulkan() {
        let exact = || device(Arithmetic::Exact);
        greedy_answers(exact, &["none", "all"], 20, 64);
        // A software driver takes a minute for each: alone, they answer less.
        greedy_answers(exact, &SELECTIONS[1..4], 6, 24);
    }
}
