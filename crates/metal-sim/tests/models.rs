//! Whole models through the Metal backend on the simulator: logits of random checkpoints against mlx-lm's (`tools/goldens` made
//! both).
#![allow(clippy::unwrap_used, reason = "a test may panic")]

// The bindings link to the simulator's symbols only if the crate is named.
extern crate metal_sim;

#[path = "../../model/tests/common/mod.rs"]
mod common;

use common::{load, read_npy, relative_l2};
use mlx_serving_device::Arithmetic;
use mlx_serving_metal::{MetalDevice, MetalOptions};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn goldens() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/goldens");
    let cases = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = cases.filter(|dir| dir.join("logits.npy").exists()).collect();
    cases.sort();
    assert!(cases.len() >= 50, "only {} cases were found", cases.len());
    cases
}

/// Fails for every case whose logits are further away than `limit`.
fn agree(cases: impl Iterator<Item = PathBuf>, arithmetic: Arithmetic, limit: f64) {
    let options = MetalOptions { arithmetic, ..MetalOptions::default() };
    let device = MetalDevice::open(&options).unwrap();
    let misses: Vec<(PathBuf, f64)> = cases
        .map(|dir| {
            let json: Value = serde_json::from_slice(&std::fs::read(dir.join("tokens.json")).unwrap()).unwrap();
            let tokens = json["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32);
            let tokens: Vec<u32> = tokens.collect();
            let prefill = json["prefill"].as_u64().unwrap() as usize;
            let (_, expected) = read_npy(&dir.join("logits.npy"));
            let found = load(&dir, device.clone()).logits(&tokens, prefill, 64);
            let error = relative_l2(&found, &expected);
            (dir, error)
        })
        .filter(|(_, error)| error.is_nan() || error > &limit)
        .collect();
    assert_eq!(misses, []);
}

#[test]
fn exact_logits_agree_with_mlx_lm() {
    agree(goldens().into_iter(), Arithmetic::Exact, 1e-4);
}

/// One case of each architecture: fast arithmetic differs from exact in the KV cache alone.
#[test]
fn fast_logits_agree_with_mlx_lm() {
    let names = ["llama", "mistral", "qwen2", "qwen3"];
    let named = |dir: &PathBuf| names.iter().any(|name| dir.ends_with(name));
    agree(goldens().into_iter().filter(named), Arithmetic::Fast, 5e-2);
}
