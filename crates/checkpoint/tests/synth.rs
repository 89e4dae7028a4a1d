//! Random checkpoints are checkpoints.

use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_checkpoint::synth::{SHAPES, Synth, write};

fn tiny(shape: &str) -> Synth {
    Synth { shape: shape.into(), bits: 4, group_size: 64, seed: 1 }
}

#[test]
fn every_tiny_shape_opens_and_has_its_linears() {
    for shape in SHAPES.iter().filter(|s| s.name.starts_with("tiny-")) {
        let dir = tempfile::tempdir().unwrap();
        write(&tiny(shape.name), dir.path()).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(checkpoint.config.model_type, shape.model_type);
        checkpoint.linear("model.layers.1.mlp.down_proj", shape.hidden, shape.intermediate).unwrap();
        checkpoint.linear("model.embed_tokens", shape.vocab, shape.hidden).unwrap();
    }
}

#[test]
fn one_seed_gives_one_checkpoint_and_another_seed_another() {
    let bytes = |seed| {
        let dir = tempfile::tempdir().unwrap();
        write(&Synth { seed, ..tiny("tiny-qwen2") }, dir.path()).unwrap();
        std::fs::read(dir.path().join("model.safetensors")).unwrap()
    };
    assert_eq!(bytes(3), bytes(3));
    assert_ne!(bytes(3), bytes(4));
}

#[test]
fn what_cannot_be_written_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let unknown = write(&tiny("gpt-9"), dir.path()).unwrap_err().to_string();
    assert!(unknown.contains("gpt-9") && unknown.contains("qwen2.5-0.5b"), "{unknown}");
    let bits = write(&Synth { bits: 7, ..tiny("tiny-qwen2") }, dir.path()).unwrap_err().to_string();
    assert!(bits.contains("7 bits"), "{bits}");
}
