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
    let paths = ["convert", "--hf-path", source.to_str().unwrap(), "--mlx-path", copy.to_str().unwrap()];
    let weights = ["-q", "--q-bits", "8", "--q-group-size", "32", "--json"];
    let args = [&paths[..], &weights].concat();
    let said: Value = serde_json::from_str(&stdout(&args)).unwrap();
    let bits = said["bits_per_weight"].as_f64().unwrap();
    assert!((9.0..9.2).contains(&bits), "{said}");
    assert_eq!((&said["left_dense"], &said["left_out"]), (&serde_json::json!([]), &serde_json::json!([])));

    let (dense, quantized) = (logits(&source, dir.path()), logits(&copy, dir.path()));
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    let apart = norm(&mut dense.iter().zip(&quantized).map(|(a, b)| a - b)) / norm(&mut dense.iter().copied());
    assert!(apart > 0.0 && apart < 0.03, "{apart}");

    let twice = dir.path().join("twice");
    let again = run(&["convert", "-q", "-m", copy.to_str().unwrap(), "-o", twice.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("quantized already"), "{again:?}");
}

#[test]
fn rules_and_formats_that_do_not_do_are_wrong_usage() {
    let source = root().join("crates/model/tests/goldens/qwen3_moe-dense-f16");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for (flags, words) in [
        (&["-q", "--q-bits", "7"][..], "2, 3, 4, 5, 6 or 8 bits"),
        (&["-q", "--q-group-size", "96"], "32, 64 or 128"),
        (&["-q", "--q-mode", "nvfp4", "--q-bits", "8"], "--q-mode nvfp4 has 4 bits in groups of 16"),
        (&["--q-bits", "4"], "--quantize"),
        (&["-q", "--q-module", "lm_head"], "NAME=FORMAT"),
        (&["-q", "--q-module", "lm_head=9"], "known are"),
        (&["-q", "--q-module", "head=4"], "no module is called head"),
    ] {
        let paths = ["convert", "-m", source.to_str().unwrap(), "-o", out.to_str().unwrap()];
        let refused = run(&[&paths[..], flags].concat());
        assert_eq!(refused.status.code(), Some(2), "{flags:?}: {refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(words), "{refused:?}");
        assert!(!out.exists(), "{flags:?}");
    }
}
