//! A token's logits are the same bits however its sequence was cut and whoever shared the batch.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Loaded, Part, bundled, cpu, goldens, load};
use mlx_serving_device::Arithmetic;
use mlx_serving_model::{KvCache, Scratch};
use proptest::prelude::*;

/// One of each architecture; a scaling whose frequencies depend on the prompt, and a window.
const CASES: [&str; 14] = [
    "qwen2-4bit-g64",
    "qwen3-untied-f16-head-128",
    "llama-dynamic-long-prompt",
    "llama-dense-head",
    "mistral-window",
    "olmo2",
    "granite",
    "phi3-longrope",
    "gemma3",
    "ministral3",
    "glm4",
    "qwen3_moe-mixed-layers",
    "mixtral",
    "glm4_moe",
];

fn tokens(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 37 + seed * 11 + i * i % 7) % 131).collect()
}

fn everywhere(check: impl Fn(&str, Loaded)) {
    for arithmetic in [Arithmetic::Exact, Arithmetic::Fast] {
        for case in CASES {
            check(&format!("{case}, {arithmetic:?}"), load(&goldens().join(case), cpu(arithmetic)));
        }
        check(&format!("the bundled model, {arithmetic:?}"), load(&bundled(), cpu(arithmetic)));
    }
}

#[test]
fn chunks_and_single_steps_are_the_whole_prompt() {
    everywhere(|case, mut model| {
        let tokens = tokens(50, 1);
        let whole = model.logits(&tokens, 50, 64);
        for chunk in [1, 3, 16, 33] {
            // Not assert_eq: it would print thousands of values.
            assert!(model.logits(&tokens, 50, chunk) == whole, "{case}, {chunk} tokens at a time");
        }
    });
}

const LENGTHS: [usize; 3] = [50, 40, 21];

/// Runs three sequences through steps that take so many rows of each, and a last step for what is left. Every row's logits
/// must be those of its sequence alone.
fn run_together(case: &str, model: &mut Loaded, steps: &[[usize; 3]]) {
    let sequences: Vec<Vec<u32>> = LENGTHS.iter().enumerate().map(|(i, &len)| tokens(len, i as u32)).collect();
    let alone: Vec<Vec<f32>> = sequences.iter().map(|s| model.logits(s, s.len(), 64)).collect();
    let vocab = model.model.vocab();
    let cache =
        KvCache::new(model.model.blueprint(), model.device.as_ref(), model.layer.allocate.as_ref(), 3 * 4).unwrap();
    let rows = LENGTHS.iter().sum();
    let scratch =
        Scratch::new(model.model.blueprint(), model.device.as_ref(), model.layer.allocate.as_ref(), rows, rows)
            .unwrap();
    // Blocks of the three lie interleaved, last first.
    let table = |i: usize| (0..4u32).map(|b| 11 - 3 * b - i as u32).collect::<Vec<_>>();
    let mut at = [0; 3];
    for wanted in steps.iter().chain([&LENGTHS]) {
        let rows: Vec<usize> = (0..3).map(|i| wanted[i].min(LENGTHS[i] - at[i])).collect();
        let parts: Vec<Part<'_>> = (0..3)
            .filter(|&i| rows[i] > 0)
            .map(|i| Part {
                tokens: &sequences[i][at[i]..at[i] + rows[i]],
                start: at[i],
                prompt: LENGTHS[i],
                blocks: table(i),
            })
            .collect();
        if parts.is_empty() {
            continue;
        }
        let found = model.step(&parts, &cache, &scratch);
        let mut row = 0;
        for i in 0..3 {
            let expected = &alone[i][at[i] * vocab..(at[i] + rows[i]) * vocab];
            assert!(&found[row * vocab..(row + rows[i]) * vocab] == expected, "{case}, sequence {i} at {}", at[i]);
            row += rows[i];
            at[i] += rows[i];
        }
    }
}

#[test]
fn sequences_of_one_batch_are_alone() {
    // Prompts in pieces beside single tokens, not all in every step.
    everywhere(|case, mut model| run_together(case, &mut model, &[[40, 0, 1], [9, 17, 1], [1, 1, 0], [0, 22, 19]]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn however_they_are_cut(
        case in prop::sample::select(&CASES[..]),
        fast: bool,
        steps in prop::collection::vec(prop::array::uniform3(0..20usize), 0..12),
    ) {
        let arithmetic = if fast { Arithmetic::Fast } else { Arithmetic::Exact };
        run_together(case, &mut load(&goldens().join(case), cpu(arithmetic)), &steps);
    }
}

#[test]
fn only_wanted_rows_go_through_the_head() {
    let mut model = load(&goldens().join("qwen3"), cpu(Arithmetic::Exact));
    let tokens = tokens(20, 4);
    let whole = model.logits(&tokens, 20, 64);
    let vocab = model.model.vocab();
    let cache = KvCache::new(model.model.blueprint(), model.device.as_ref(), model.layer.allocate.as_ref(), 2).unwrap();
    // Room for two rows of logits only.
    let scratch =
        Scratch::new(model.model.blueprint(), model.device.as_ref(), model.layer.allocate.as_ref(), 20, 2).unwrap();
    let part = Part { tokens: &tokens, start: 0, prompt: 20, blocks: vec![0, 1] };
    let found = model.step_for(&[part], &[19, 3], &cache, &scratch);
    assert!(found[..vocab] == whole[19 * vocab..20 * vocab] && found[vocab..] == whole[3 * vocab..4 * vocab]);
}
