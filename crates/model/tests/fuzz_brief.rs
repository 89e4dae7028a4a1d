//! The fuzz target on the stable toolchain: a valid file, mutated from fixed seeds. It returns, whatever the bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_model::fuzz;
use std::path::Path;

const ROUNDS: u64 = 5_000;

fn bundled(file: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit").join(file)).unwrap()
}

/// xorshift64.
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize
}

/// One to four edits: a byte flipped, replaced by a telling one, removed, doubled, or the end cut off.
fn mutate(valid: &[u8], seed: u64) -> Vec<u8> {
    const TELLING: &[u8] = b"0919-.eE\"{}[],:\0\xff";
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = valid.to_vec();
    for _ in 0..1 + next(&mut state) % 4 {
        if bytes.is_empty() {
            break;
        }
        let at = next(&mut state) % bytes.len();
        match next(&mut state) % 8 {
            0 | 1 => bytes[at] ^= 1 << (next(&mut state) % 8),
            2..=4 => bytes[at] = TELLING[next(&mut state) % TELLING.len()],
            5 => drop(bytes.remove(at)),
            6 => bytes.insert(at, bytes[at]),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

#[test]
fn mutated_configurations_are_read_or_refused() {
    let valid = bundled("config.json");
    (0..ROUNDS).for_each(|seed| fuzz::config_json(&mutate(&valid, seed)));
}
