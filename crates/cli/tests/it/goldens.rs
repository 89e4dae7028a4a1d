//! The bundled model against mlx-lm in float32: see tools/goldens/README.md.

use crate::common::{Server, root, stdout};
use serde_json::{Value, json};

fn golden(file: &str) -> Value {
    let path = root().join("crates/cli/tests/goldens").join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn greedy() -> Vec<Value> {
    let prompts = golden("greedy.json")["prompts"].as_array().unwrap().clone();
    assert!(prompts.len() >= 20);
    prompts
}

#[test]
fn greedy_tokens_are_mlx_lms() {
    for golden in greedy() {
        let prompt = golden["prompt"].as_str().unwrap();
        let answer: Value = serde_json::from_str(&stdout(&[
            "generate",
            "--raw",
            "--json",
            "--arithmetic",
            "exact",
            "--temperature",
            "0",
            "--max-tokens",
            "64",
            "--prompt",
            prompt,
        ]))
        .unwrap();
        // Ours ends with the stop token, where one ended it.
        let mut expected = golden["token_ids"].as_array().unwrap().clone();
        expected.extend(Some(golden["stop_token_id"].clone()).filter(|stop| !stop.is_null()));
        assert_eq!(answer["token_ids"], json!(expected), "{prompt:?}: {answer}");
        assert_eq!(answer["text"], golden["text"]);
        assert_eq!(answer["finish_reason"], golden["finish_reason"], "{prompt:?}");
    }
}

#[test]
fn served_answers_are_mlx_lms() {
    let server = Server::start(&["--device", "cpu", "--arithmetic", "exact"]);
    for golden in greedy() {
        let chat = golden["messages"].is_array();
        let (path, field) = if chat { ("/v1/chat/completions", "messages") } else { ("/v1/completions", "prompt") };
        let (status, answer) = server.post(path, &json!({ field: golden[field], "temperature": 0, "max_tokens": 64 }));
        assert_eq!(status, 200, "{answer}");
        let choice = &answer["choices"][0];
        let text = if chat { &choice["message"]["content"] } else { &choice["text"] };
        assert_eq!(text, &golden["text"], "{}", golden["prompt"]);
        assert_eq!(choice["finish_reason"], golden["finish_reason"]);
        assert_eq!(answer["usage"]["prompt_tokens"], golden["prompt_token_ids"].as_array().unwrap().len());
    }
}

#[test]
fn perplexity_is_mlx_lms_and_hardly_moves_in_fast_arithmetic() {
    let text = root().join("crates/cli/tests/goldens/book.txt");
    let text = text.to_str().unwrap();
    let args = ["eval", "perplexity", "--text", text, "--arithmetic", "fast", "--compare-exact", "--json"];
    let report: Value = serde_json::from_str(&stdout(&args)).unwrap();
    let expected = golden("perplexity.json");
    assert_eq!(report["tokens"], expected["predicted"]);
    let exact = report["exact_perplexity"].as_f64().unwrap();
    let oracle = expected["perplexity"].as_f64().unwrap();
    assert!((exact / oracle - 1.0).abs() < 1e-4, "{exact} is not {oracle}");
    assert!(report["perplexity_change"].as_f64().unwrap().abs() <= 0.005, "{report}");
    assert!(report["mean_kl_nats"].as_f64().unwrap() <= 0.01, "{report}");
    assert!(report["top1_agreement"].as_f64().unwrap() >= 0.99, "{report}");
}
