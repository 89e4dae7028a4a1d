//! The bundled model, read as it is shipped.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_checkpoint::{Checkpoint, Dtype, LinearFormat};
use std::path::Path;

fn bundled() -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit")).unwrap()
}

#[test]
fn its_configuration_is_what_its_card_says() {
    let checkpoint = bundled();
    let keys = checkpoint.config.keys();
    assert_eq!(
        (keys.size("hidden_size", 1 << 20).unwrap(), keys.flag("tie_word_embeddings", false).unwrap()),
        (256, true)
    );
    assert_eq!(keys.text("hidden_act").unwrap(), Some("silu"));
    assert_eq!(checkpoint.generation.eos_token_ids, Some(vec![2, 0]));
}

#[test]
fn its_linears_are_quantized_to_four_bits() {
    let checkpoint = bundled();
    match checkpoint.linear("model.layers.0.mlp.gate_proj", 704, 256).unwrap() {
        LinearFormat::Quantized { quantization, scale_dtype } => {
            assert_eq!((quantization.bits, quantization.group_size, scale_dtype), (4, 64, Dtype::BF16));
        }
        other => panic!("{other:?}"),
    }
    let bytes = ["weight", "scales", "biases"]
        .map(|tensor| checkpoint.get(&format!("model.layers.0.mlp.gate_proj.{tensor}")).unwrap().bytes);
    assert_eq!(bytes, [704 * 128, 704 * 4 * 2, 704 * 4 * 2]);
    let error = checkpoint.linear("model.layers.0.mlp.gate_proj", 700, 256).unwrap_err().to_string();
    assert!(error.contains("gate_proj") && error.contains("[704, 32]") && error.contains("[700, 32]"), "{error}");
}

#[test]
fn its_bytes_are_those_of_its_file_without_the_header() {
    let checkpoint = bundled();
    let file = std::fs::metadata(checkpoint.dir().join("model.safetensors")).unwrap().len();
    assert!(checkpoint.total_bytes() < file && checkpoint.total_bytes() > file - 20_000);
}

#[test]
fn tensors_are_read_piece_by_piece_and_not_beyond_their_end() {
    let checkpoint = bundled();
    let name = "model.layers.0.mlp.gate_proj.scales";
    let len = checkpoint.get(name).unwrap().bytes as usize;
    let read = |offset: usize, len: usize| {
        let mut bytes = vec![0; len];
        checkpoint.read(name, offset as u64, &mut bytes).map(|()| bytes)
    };
    let whole = read(0, len).unwrap();
    assert_eq!([read(0, 7).unwrap(), read(7, len - 7).unwrap()].concat(), whole);
    let file = std::fs::read(checkpoint.dir().join("model.safetensors")).unwrap();
    assert!(file.windows(len).any(|bytes| bytes == whole));
    for (offset, len) in [(len - 1, 2), (len + 1, 0), (usize::MAX, 2)] {
        let error = read(offset, len).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("model.safetensors"), "{error}");
    }
    assert!(checkpoint.read("absent", 0, &mut []).unwrap_err().to_string().contains("absent"));
}
