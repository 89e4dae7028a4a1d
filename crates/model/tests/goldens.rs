//! Logits of random checkpoints against mlx-lm's (`tools/goldens` made both).
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{cpu, goldens, load, read_npy, relative_l2};
use mlx_serving_device::fake::{FakeDevice, FakeOptions};
use mlx_serving_device::{Arithmetic, Device};
use serde_json::Value;
use std::sync::Arc;

/// Every case whose logits are further away than `limit`.
fn misses(device: impl Fn() -> Arc<dyn Device>, limit: f64) -> Vec<(String, f64)> {
    let mut misses = Vec::new();
    let mut cases = 0;
    for entry in std::fs::read_dir(goldens()).unwrap() {
        let dir = entry.unwrap().path();
        if !dir.join("logits.npy").exists() {
            continue;
        }
        let json: Value = serde_json::from_slice(&std::fs::read(dir.join("tokens.json")).unwrap()).unwrap();
        let tokens: Vec<u32> = json["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
        let prefill = json["prefill"].as_u64().unwrap() as usize;
        let (shape, expected) = read_npy(&dir.join("logits.npy"));
        assert_eq!(shape[0], tokens.len());
        let found = load(&dir, device()).logits(&tokens, prefill, 64);
        let error = relative_l2(&found, &expected);
        cases += 1;
        if error.is_nan() || error > limit {
            misses.push((dir.file_name().unwrap().to_string_lossy().into_owned(), error));
        }
    }
    assert!(cases >= 50, "only {cases} cases were found");
    misses
}

#[test]
fn exact_logits_agree_with_mlx_lm() {
    assert_eq!(misses(|| cpu(Arithmetic::Exact), 1e-4), []);
}

#[test]
fn fast_logits_agree_with_mlx_lm() {
    assert_eq!(misses(|| cpu(Arithmetic::Fast), 5e-2), []);
}

/// The fake device runs the oracle: what backends are held to is itself held to mlx-lm. A discrete one, so that nothing on the way
/// takes private memory for the host's.
#[test]
fn the_oracles_logits_agree_with_mlx_lm() {
    let discrete = FakeOptions { unified_memory: false, ..FakeOptions::default() };
    assert_eq!(misses(|| FakeDevice::new(discrete).unwrap(), 1e-4), []);
}
