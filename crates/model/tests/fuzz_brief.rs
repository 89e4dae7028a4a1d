//! The fuzz target on the stable toolchain: a valid file, mutated from fixed seeds. It returns, whatever the bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../checkpoint/tests/mutate/mod.rs"]
mod mutate;

use mlx_serving_model::fuzz;
use mutate::mutate;
use std::path::Path;

const ROUNDS: u64 = 5_000;

fn bundled(file: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit").join(file)).unwrap()
}

#[test]
fn mutated_configurations_are_read_or_refused() {
    let valid = bundled("config.json");
    (0..ROUNDS).for_each(|seed| fuzz::config_json(&mutate(&valid, seed)));
}
