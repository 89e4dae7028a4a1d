//! Random models are models.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Loaded, cpu, load, load_checkpoint};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::Arithmetic;
use mlx_serving_model::synth::{Synth, shapes};

fn tiny(shape: &str) -> Synth {
    Synth { shape: shape.into(), bits: 4, group_size: 64, seed: 1 }
}

fn logits(mut model: Loaded) -> Vec<f32> {
    model.logits(&[1, 2, 3], 3, 8)
}

#[test]
fn every_tiny_shape_is_the_same_model_in_memory_and_on_disk_and_nothing_of_it_is_unused() {
    for shape in shapes().filter(|shape| shape.name.starts_with("tiny-")) {
        let dir = tempfile::tempdir().unwrap();
        tiny(shape.name).write(dir.path()).unwrap();
        let written = load(dir.path(), cpu(Arithmetic::Exact));
        assert!(written.model.unused().is_empty(), "{}", shape.name);
        let made = load_checkpoint(tiny(shape.name).checkpoint(|_| {}).unwrap(), cpu(Arithmetic::Exact)).unwrap();
        let (written, made) = (logits(written), logits(made));
        assert!(written == made && made.iter().all(|l| l.is_finite()) && made[0] != made[1], "{}", shape.name);
    }
}

#[test]
fn a_tensor_is_the_same_in_one_piece_and_in_many() {
    let checkpoint = tiny("tiny-qwen3").checkpoint(|_| {}).unwrap();
    for name in ["model.layers.1.self_attn.k_proj.weight", "model.layers.1.mlp.up_proj.biases", "model.norm.weight"] {
        let len = checkpoint.get(name).unwrap().bytes as usize;
        let read = |from: usize, to: usize| {
            let mut bytes = vec![0; to - from];
            checkpoint.read(name, from as u64, &mut bytes).unwrap();
            bytes
        };
        let pieces: Vec<u8> = (0..len).step_by(37).flat_map(|from| read(from, len.min(from + 37))).collect();
        assert_eq!(pieces, read(0, len), "{name}");
    }
}

#[test]
fn one_seed_gives_one_checkpoint_and_another_seed_another() {
    let bytes = |seed| {
        let dir = tempfile::tempdir().unwrap();
        Synth { seed, ..tiny("tiny-qwen2") }.write(dir.path()).unwrap();
        std::fs::read(dir.path().join("model.safetensors")).unwrap()
    };
    assert_eq!(bytes(3), bytes(3));
    assert_ne!(bytes(3), bytes(4));
}

/// Figures on record were measured with these weights.
#[test]
fn weights_are_those_of_earlier_versions() {
    let checkpoint = tiny("tiny-qwen2").checkpoint(|_| {}).unwrap();
    let sum = |name: &str| {
        let mut bytes = vec![0; checkpoint.get(name).unwrap().bytes as usize];
        checkpoint.read(name, 0, &mut bytes).unwrap();
        bytes.iter().fold(0u64, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
    };
    let names = ["model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.bias", "model.norm.weight"];
    assert_eq!(names.map(sum), [13_420_418_758_160_704_669, 12_179_945_201_748_879_394, 10_514_522_620_366_680_463]);
}

#[test]
fn what_cannot_be_written_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let unknown = tiny("gpt-9").write(dir.path()).unwrap_err().to_string();
    assert!(unknown.contains("gpt-9") && unknown.contains("qwen2.5-0.5b"), "{unknown}");
    let bits = Synth { bits: 7, ..tiny("tiny-qwen2") }.write(dir.path()).unwrap_err().to_string();
    assert!(bits.contains("7 bits"), "{bits}");
    let opened = Checkpoint::open(dir.path());
    assert!(opened.is_err(), "nothing was written");
}
