//! The three optimisations over the Metal backend on the simulator: on or off, the tokens are those of the CPU's exact mode.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

// The bindings link to the simulator's symbols only if the crate is named.
extern crate metal_sim;

#[path = "../../engine/tests/common/mod.rs"]
mod common;

use common::{Answer, read, start, tokenizer};
use metal_sim::faults;
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::{Arithmetic, Device};
use mlx_serving_engine::{Engine, Options, Request, Sampling};
use mlx_serving_metal::{MetalDevice, MetalOptions};
use mlx_serving_metal_layer::config::MetalOptimizations;
use std::sync::Arc;

fn requests() -> Vec<Request> {
    let sampling = [
        Sampling::default(),
        Sampling { temperature: 0.8, top_p: 0.9, top_k: 40, seed: Some(7), ..Sampling::default() },
        Sampling { repetition_penalty: 1.3, frequency_penalty: 0.4, ..Sampling::default() },
    ];
    let prompts = ["Ownership is", "fn main() {", "What is a trait?"];
    let request = |(prompt, sampling)| Request {
        prompt: tokenizer().encode(prompt, false).unwrap(),
        sampling,
        max_tokens: Some(8),
        ignore_eos: true,
        ..Request::default()
    };
    prompts.into_iter().zip(sampling).map(request).collect()
}

fn cpu() -> Arc<dyn Device> {
    let options = CpuOptions { threads: Some(1), arithmetic: Arithmetic::Exact, ..CpuOptions::default() };
    CpuDevice::new(&options).unwrap()
}

fn metal() -> Arc<dyn Device> {
    MetalDevice::open(&MetalOptions { arithmetic: Arithmetic::Exact, ..MetalOptions::default() }).unwrap()
}

fn config(list: &str) -> MetalOptimizations {
    let mut config = MetalOptimizations::default();
    config.select(list).unwrap();
    config.memory_pool.heap_size_mb = 16;
    config.memory_pool.num_heaps = 2;
    config.memory_pool.warmup_buffer_sizes_mb = Vec::new();
    config.blit_queue.staging_buffer_size_mb = 8;
    // A simulated step takes its time.
    config.command_buffer_ring.max_wait_ms = 10_000;
    config
}

fn engine(device: Arc<dyn Device>, config: &MetalOptimizations) -> Engine {
    let options = Options { max_sequences: 3, max_batch_rows: 16, kv_tokens: 256, ..Options::default() };
    start(device, config, &options).unwrap()
}

fn answers(engine: &Engine) -> Vec<Answer> {
    let streams: Vec<_> = requests().into_iter().map(|request| engine.submit(request).unwrap()).collect();
    streams.into_iter().map(|stream| read(stream).unwrap()).collect()
}

/// Runs the requests with some optimisations, all of which must run to the end.
fn same_tokens(list: &str, unified: bool) {
    faults::reset();
    faults::set_unified_memory(unified);
    faults::set_seed(11);
    let expected = answers(&engine(cpu(), &config("none")));
    let engine = engine(metal(), &config(list));
    assert_eq!(answers(&engine), expected);
    let stats = serde_json::to_value(engine.stats()).unwrap();
    for name in ["memory_pool", "blit_queue", "command_buffer_ring"] {
        let on = list == "all" || list == name;
        assert_eq!(stats[name]["enabled"], on, "{stats}");
    }
    drop(engine);
    metal_sim::drain(std::time::Duration::from_secs(60));
    assert_eq!(metal_sim::leaks(), [""; 0]);
}

#[test]
fn without_optimisations() {
    same_tokens("none", true);
}

#[test]
fn with_the_memory_pool() {
    same_tokens("memory_pool", true);
}

#[test]
fn with_the_blit_queue() {
    same_tokens("blit_queue", true);
}

#[test]
fn with_the_command_buffer_ring() {
    same_tokens("command_buffer_ring", true);
}

#[test]
fn with_all_three() {
    same_tokens("all", true);
}

#[test]
fn with_all_three_and_memory_of_its_own() {
    same_tokens("all", false);
}
