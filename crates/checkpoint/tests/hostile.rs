//! Broken and hostile checkpoints: one clear error each.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_checkpoint::Checkpoint;
use std::path::Path;

/// Opens the bundled model's configuration, changed, beside the given files; the error's words.
fn refusal(config: (&str, &str), files: &[(&str, &[u8])]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit/config.json");
    let text = std::fs::read_to_string(bundled).unwrap();
    assert!(text.contains(config.0), "the test changes something that is not there");
    std::fs::write(dir.path().join("config.json"), text.replacen(config.0, config.1, 1)).unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    Checkpoint::open(dir.path()).unwrap_err().to_string()
}

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

fn broken_weights(bytes: &[u8]) -> String {
    let error = refusal(("", ""), &[("model.safetensors", bytes)]);
    assert!(error.contains("model.safetensors") && error.contains("download it again"), "{error}");
    error
}

#[test]
fn a_header_longer_than_the_file() {
    let error = broken_weights(&[&(1u64 << 60).to_le_bytes()[..], b"{}"].concat());
    assert!(error.contains("claims 1152921504606846976 bytes"), "{error}");
}

#[test]
fn truncated_and_overlapping_tensors() {
    broken_weights(b"abc");
    broken_weights(&safetensors(r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#, 8));
    broken_weights(&safetensors(
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
        12,
    ));
}

const ONE: &str = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
const TWO: &str =
    r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;

fn broken_index(weight_map: &str) -> String {
    let index = format!(r#"{{"weight_map":{weight_map}}}"#);
    let (one, two) = (safetensors(ONE, 4), safetensors(TWO, 8));
    let files = [("model.safetensors.index.json", index.as_bytes()), ("1.safetensors", &one), ("2.safetensors", &two)];
    refusal(("", ""), &files)
}

#[test]
fn an_index_that_leaves_the_folder() {
    for shard in ["../1.safetensors", "/etc/passwd", "..", "", "./1.safetensors"] {
        let error = broken_index(&format!(r#"{{"a":"{shard}"}}"#));
        assert!(error.contains(&format!("{shard:?}")) && error.contains("shards lie beside the index"), "{error}");
    }
}

#[test]
fn an_index_and_shards_that_disagree() {
    let error = broken_index(r#"{"a":"absent.safetensors"}"#);
    assert!(error.contains("absent.safetensors") && error.contains("pull the model"), "{error}");
    let error = broken_index(r#"{"c":"1.safetensors"}"#);
    assert!(error.contains("1.safetensors: no tensor c"), "{error}");
    let error = broken_index(r#"{"a":"1.safetensors","b":"2.safetensors"}"#);
    assert!(error.contains("tensor a is in") && error.contains("2.safetensors"), "{error}");
}

#[test]
fn an_unknown_quantisation_mode() {
    let error = refusal(("\"bits\": 4", "\"bits\": 4, \"mode\": \"mxfp4\""), &[]);
    assert!(error.contains("mode is \"mxfp4\"") && error.contains("--q-mode affine"), "{error}");
}

#[test]
fn an_unknown_model_type_lists_those_known() {
    let error = refusal(("\"qwen2\"", "\"gpt9\""), &[]);
    assert!(error.contains("config.json") && error.contains("gpt9") && error.contains("qwen3"), "{error}");
}

#[test]
fn heads_that_do_not_divide() {
    let error = refusal(("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"), &[]);
    assert!(error.contains("num_key_value_heads") && error.contains('3'), "{error}");
}
