//! `convert`: a quantized copy that loads, and what is said of it.

use crate::common::{root, run, stdout};
use serde_json::Value;
use std::path::Path;

/// Logits of some tokens.
fn logits(model: &Path, dir: &Path) -> Vec<f32> {
    let out = dir.join("logits.npy");
    let (model, file) = (model.to_str().unwrap(), out.to_str().unwrap());
    stdout(&[
        "eval",
        "logits",
        "-m",
        model,
        "--tokens",
        "110,116,18,125",
        "--device",
        "cpu",
        "--arithmetic",
        "exact",
        "-o",
        file,
    ]);
    let bytes = std::fs::read(out).unwrap();
    // Four rows of 131, behind a header.
    let values = &bytes[bytes.len() - 4 * 4 * 131..];
    values.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[test]
fn a_quantized_copy_computes_almost_the_same() {
    let source = root().join("crates/model/tests/goldens/qwen3_moe-dense-f16");
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let args = [
        "convert",
        source.to_str().unwrap(),
        copy.to_str().unwrap(),
        "--format",
        "8:32",
        "--module",
        "*.mlp.gate=dense",
        "--json",
    ];
    let said: Value = serde_json::from_str(&stdout(&args)).unwrap();
    let bits = said["bits_per_weight"].as_f64().unwrap();
    assert!((9.0..9.2).contains(&bits), "{said}");
    assert_eq!((&said["left_dense"], &said["left_out"]), (&serde_json::json!([]), &serde_json::json!([])));

    let (dense, quantized) = (logits(&source, dir.path()), logits(&copy, dir.path()));
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    let apart = norm(&mut dense.iter().zip(&quantized).map(|(a, b)| a - b)) / norm(&mut dense.iter().copied());
    assert!(apart > 0.0 && apart < 0.03, "{apart}");

    let again = run(&["convert", copy.to_str().unwrap(), dir.path().join("twice").to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("quantized already"), "{again:?}");
}

#[test]
fn rules_and_formats_that_do_not_do_are_wrong_usage() {
    let source = root().join("crates/model/tests/goldens/qwen3_moe-dense-f16");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for (flags, words) in [
        (["--format", "7"], "known are"),
        (["--module", "lm_head"], "NAME=FORMAT"),
        (["--module", "lm_head=9"], "known are"),
        (["--module", "head=4"], "no module is called head"),
        (["--format", "4:96"], "known are"),
    ] {
        let refused = run(&[&["convert", source.to_str().unwrap(), out.to_str().unwrap()][..], &flags].concat());
        assert_eq!(refused.status.code(), Some(2), "{flags:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(words), "{refused:?}");
        assert!(!out.exists(), "{flags:?}");
    }
}
