//! `--cpu-instructions`: each set of kernels that this processor has, and those that it lacks.

use crate::common::{Server, binary, run, stdout};
use serde_json::Value;

const SETS: [&str; 4] = ["avx512", "avx2", "neon", "portable"];

/// Sets of kernels that this processor has, as `doctor` tells; the others are refused.
fn sets() -> Vec<&'static str> {
    let has = |set: &str| {
        let report = stdout(&["doctor", "--json", "--device", "cpu", "--cpu-instructions", set]);
        let report: Value = serde_json::from_str(&report).unwrap();
        match report["devices"].as_array().unwrap().first() {
            Some(device) => {
                assert_eq!(device["instructions"], set, "{report}");
                true
            }
            None => {
                let named =
                    format!("engine.cpu_instructions (--cpu-instructions): this processor has no {set}; it has ");
                let problems = report["problems"].as_array().unwrap();
                assert!(problems.iter().any(|problem| problem.as_str().unwrap().starts_with(&named)), "{report}");
                false
            }
        }
    };
    let sets: Vec<&str> = SETS.into_iter().filter(|set| has(set)).collect();
    assert!(sets.contains(&"portable") && !(sets.contains(&"neon") && sets.contains(&"avx2")), "{sets:?}");
    sets
}

/// The bundled model's logits, as a file's bytes.
fn logits(set: &str, arithmetic: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("logits.npy");
    let tokens = (0..40).map(|i| (i * 97 + 5).to_string()).collect::<Vec<_>>().join(",");
    let common = ["eval", "logits", "--device", "cpu", "--cpu-instructions", set, "--arithmetic", arithmetic];
    stdout(&[&common[..], &["--tokens", &tokens, "--output", file.to_str().unwrap()]].concat());
    std::fs::read(file).unwrap()
}

#[test]
fn sets_that_fuse_multiply_and_add_compute_the_same_bits() {
    for arithmetic in ["exact", "fast"] {
        let found: Vec<Vec<u8>> =
            sets().into_iter().filter(|set| *set != "portable").map(|set| logits(set, arithmetic)).collect();
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "in {arithmetic} arithmetic");
        assert!(found.iter().all(|bytes| bytes != &logits("portable", arithmetic)), "plain Rust fuses nothing");
    }
}

#[test]
fn the_greedy_answer_is_the_same_with_every_set() {
    let answer = |set: &str| {
        let prompt = ["--prompt", "What Is Ownership?", "--temperature", "0", "--max-tokens", "64"];
        let common = ["generate", "--device", "cpu", "--arithmetic", "exact", "--cpu-instructions", set];
        stdout(&[&common[..], &prompt].concat())
    };
    let auto = answer("auto");
    assert!(auto.split_whitespace().count() > 20, "{auto:?}");
    for set in sets() {
        assert_eq!(answer(set), auto, "{set}");
    }
}

#[test]
fn a_set_that_the_processor_lacks_is_refused_with_those_that_it_has() {
    let sets = sets();
    for lacking in SETS.into_iter().filter(|set| !sets.contains(set)) {
        let output = run(&["generate", "--prompt", "x", "--device", "cpu", "--cpu-instructions", lacking]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(&format!("it has {}; auto takes the best", sets.join(", "))), "{message}");
    }
}

#[test]
fn a_name_that_is_no_set_is_wrong_usage() {
    let output = run(&["generate", "--prompt", "x", "--cpu-instructions", "sse9"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(SETS.iter().all(|set| message.contains(set)), "{message}");
}

#[test]
fn the_set_in_use_is_named() {
    let output = binary().args(["doctor", "--device", "cpu"]).env("MLX_SERVING_CPU_INSTRUCTIONS", "portable").output();
    let report = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(report.contains("portable kernels") && !report.contains("uses \n"), "{report}");
    let server = Server::start(&["--device", "cpu", "--cpu-instructions", "portable"]);
    let (status, stats) = server.get("/v1/metal/stats");
    assert_eq!(status, 200);
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["device"]["instructions"], "portable", "{stats}");
}
