//! `/v1/embeddings` of a server with a model that generates and an embedding model made of the same weights.

use crate::common::{Server, copy_model};
use serde_json::{Value, json};
use std::path::Path;

/// The bundled model as sentence-transformers would publish it: the mean of the hidden states, and an end token behind every text.
fn embedding_model(dir: &Path) -> String {
    let model = copy_model(dir, "embedder");
    std::fs::create_dir(model.join("1_Pooling")).unwrap();
    std::fs::write(model.join("1_Pooling/config.json"), r#"{ "pooling_mode_mean_tokens": true }"#).unwrap();
    let module =
        |path: &str, name: &str| json!({ "path": path, "type": format!("sentence_transformers.models.{name}") });
    let modules =
        json!([module("", "Transformer"), module("1_Pooling", "Pooling"), module("2_Normalize", "Normalize")]);
    std::fs::write(model.join("modules.json"), modules.to_string()).unwrap();
    let path = model.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    tokenizer["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": "<|endoftext|>", "type_id": 0 } }],
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
        "special_tokens": { "<|endoftext|>": { "id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"] } },
    });
    std::fs::write(path, tokenizer.to_string()).unwrap();
    model.to_str().unwrap().to_owned()
}

fn embed(server: &Server, model: &str, input: &Value) -> Value {
    let (status, json) = server.post("/v1/embeddings", &json!({ "model": model, "input": input }));
    assert_eq!(status, 200, "{json}");
    json
}

fn vectors(json: &Value) -> Vec<Vec<f64>> {
    let numbers = |entry: &Value| entry["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    json["data"].as_array().unwrap().iter().map(numbers).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn texts_are_embedded_as_the_model_says_and_beside_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (embedder, generator) = (embedding_model(dir.path()), copy_model(dir.path(), "generator"));
    let server = Server::start(&["--device", "cpu", "--model", generator.to_str().unwrap(), "--model", &embedder]);
    let texts = ["Ownership is a set of rules.", "Ownership is a set of many rules.", "fn main() {}"];
    let json = embed(&server, "embedder", &json!(texts));
    let found = vectors(&json);
    for vector in &found {
        assert_eq!(vector.len(), 256);
        assert!((dot(vector, vector) - 1.0).abs() < 1e-5);
    }
    assert!(dot(&found[0], &found[1]) > dot(&found[0], &found[2]), "like texts are near");
    // The end token is one of a text's, and is no addition to ids.
    let ids: Vec<Value> = texts
        .iter()
        .map(|text| server.post("/v1/tokenize", &json!({ "model": "embedder", "prompt": text })).1["tokens"].clone())
        .collect();
    assert!(ids.iter().all(|ids| ids.as_array().unwrap().last() == Some(&json!(0))));
    let tokens: usize = ids.iter().map(|ids| ids.as_array().unwrap().len()).sum();
    assert_eq!(json["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }));
    assert_eq!(vectors(&embed(&server, "embedder", &json!(ids))), found);
    // One by one, and in other company.
    for (text, vector) in texts.iter().zip(&found) {
        assert_eq!(&vectors(&embed(&server, "embedder", &json!(text)))[0], vector);
    }
    // A model that generates embeds too: its last token's hidden state.
    let others = vectors(&embed(&server, "generator", &json!(texts)));
    assert!(others.iter().all(|vector| (dot(vector, vector) - 1.0).abs() < 1e-5) && others != found);
    let message = json!([{ "role": "user", "content": "What Is Ownership?" }]);
    let chat =
        |model| server.post("/v1/chat/completions", &json!({ "model": model, "messages": message, "max_tokens": 3 }));
    assert_eq!(chat("generator").0, 200);
    let (status, refused) = chat("embedder");
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("model")), "{refused}");
    let prompts = server.metric("vllm:prompt_tokens_total");
    assert!(prompts >= 3.0 * tokens as f64, "{prompts}");
}

#[test]
fn many_inputs_are_embedded_in_order_through_few_places() {
    let config = "engine: { max_sequences: 2, max_waiting: 3, kv_cache_tokens: 512 }";
    let server = Server::configured(config);
    let texts: Vec<String> = (0..200).map(|i| "rule ".repeat(1 + i % 9)).collect();
    let (status, json) = server.post("/v1/embeddings", &json!({ "input": texts, "dimensions": 8 }));
    assert_eq!(status, 200, "{json}");
    let found = vectors(&json);
    assert!(found.iter().enumerate().all(|(i, vector)| vector.len() == 8 && *vector == found[i % 9]));
    assert!((1..9).all(|i| found[i] != found[0]));
}
