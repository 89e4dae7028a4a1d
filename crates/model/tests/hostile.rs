//! Broken safetensors files: one error that names the file, never a panic, and no memory for what a header merely claims.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{cpu, goldens, try_load};
use mlx_serving_device::Arithmetic;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A checkpoint's file, taken apart.
struct File {
    header: Value,
    data: Vec<u8>,
}

impl File {
    fn golden() -> Self {
        let bytes = std::fs::read(goldens().join("qwen2/model.safetensors")).unwrap();
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        Self { header: serde_json::from_slice(&bytes[8..8 + len]).unwrap(), data: bytes[8 + len..].to_vec() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header = self.header.to_string();
        header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &self.data].concat()
    }
}

/// Loads the qwen2 case with another model.safetensors; its error, if that is what came.
fn outcome(bytes: &[u8]) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(goldens().join("qwen2/config.json"), dir.path().join("config.json")).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    try_load(dir.path(), cpu(Arithmetic::Exact)).map(|_| ()).map_err(|error| {
        let message = error.to_string();
        let named = message.contains(&dir.path().display().to_string());
        assert!(named, "no file: {message}");
        message
    })
}

fn refused(what: &str, bytes: &[u8]) -> String {
    outcome(bytes).expect_err(what)
}

/// A tensor of the case, quantized, (128, 8) words.
const TENSOR: &str = "model.layers.0.mlp.gate_proj.weight";

#[test]
fn the_golden_itself_is_loaded() {
    outcome(&File::golden().bytes()).unwrap();
}

#[test]
fn broken_framing_is_refused() {
    let whole = File::golden().bytes();
    for len in [0, 1, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        refused(&format!("{len} bytes"), &whole[..len]);
    }
    for claim in [0, 1, whole.len() as u64 - 7, 1 << 40, u64::MAX - 7, u64::MAX] {
        let mut bytes = whole.clone();
        bytes[..8].copy_from_slice(&claim.to_le_bytes());
        refused(&format!("a header of {claim} bytes"), &bytes);
    }
    refused("bytes behind the last tensor", &[&whole[..], b"more"].concat());
    refused("a header that is no JSON", &[&8u64.to_le_bytes()[..], b"{broken}"].concat());
}

#[test]
fn broken_tensors_are_refused() {
    let golden = File::golden().header[TENSOR].clone();
    let offsets = golden["data_offsets"].as_array().unwrap();
    let (start, end) = (offsets[0].as_u64().unwrap(), offsets[1].as_u64().unwrap());
    let cases = [
        ("data_offsets", json!([start, end + 4])),
        ("data_offsets", json!([start + 1, end + 1])),
        ("data_offsets", json!([end, start])),
        ("data_offsets", json!([0, end - start])),
        ("data_offsets", json!([start, 1u64 << 60])),
        ("shape", json!([1u64 << 40, 1u64 << 40])),
        ("shape", json!([64, 16])),
        ("shape", json!([1024])),
        ("shape", json!([-1, 8])),
        ("dtype", json!("I32")),
        ("dtype", json!("F32")),
        ("dtype", json!("Q4_K")),
    ];
    for (key, value) in cases {
        let mut file = File::golden();
        file.header[TENSOR][key] = value.clone();
        refused(&format!("{key} {value}"), &file.bytes());
    }
}

#[test]
fn wrong_and_absent_tensors_are_named() {
    for (tensor, dtype) in [(TENSOR, "F32"), ("model.norm.weight", "I16"), ("model.layers.1.mlp.up_proj.scales", "U16")]
    {
        let mut file = File::golden();
        file.header[tensor]["dtype"] = json!(dtype);
        let message = refused(tensor, &file.bytes());
        assert!(message.contains(tensor), "{message}");
    }
    for tensor in [TENSOR, "model.norm.weight", "model.layers.0.self_attn.q_proj.bias", "model.embed_tokens.biases"] {
        let mut file = File::golden();
        let entry = file.header.as_object_mut().unwrap().remove(tensor).unwrap();
        file.header["something.else"] = entry;
        let message = refused(tensor, &file.bytes());
        assert!(message.contains(tensor), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_changed_byte_of_the_header_never_panics(at in 0..4096usize, byte: u8) {
        let mut bytes = File::golden().bytes();
        bytes[at] = byte;
        // Some changes are harmless; whatever comes must come as a result.
        let _ = outcome(&bytes);
    }
}
