//! Keys of `config.json` that all models share, and of `generation_config.json`: each is read, or refused with its name, what was found and
//! what was expected.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_checkpoint::{Checkpoint, Config, Nesting};
use serde_json::{Value, json};
use std::path::Path;

/// Opens the bundled model with some keys of a JSON file changed; `null` removes a key.
fn opened(file: &str, changes: &Value) -> Result<Checkpoint, String> {
    let dir = tempfile::tempdir().unwrap();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit");
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        std::fs::copy(bundled.join(name), dir.path().join(name)).unwrap();
    }
    let path = dir.path().join(file);
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(&path, config.to_string()).unwrap();
    Checkpoint::open(dir.path()).map_err(|error| {
        let message = error.to_string();
        assert!(message.contains(file) && message.contains(", expected "), "{message}");
        message
    })
}

fn config(changes: Value) -> Result<Checkpoint, String> {
    opened("config.json", &changes)
}

#[test]
fn sampling_that_no_request_could_ask_for() {
    for (key, value) in [
        ("temperature", json!(-1)),
        ("temperature", json!(1e30)),
        ("top_p", json!(7)),
        ("top_p", json!(-0.1)),
        ("top_k", json!(-3)),
        ("top_k", json!(2.5)),
        ("min_p", json!(2)),
        ("repetition_penalty", json!(0)),
        ("do_sample", json!("yes")),
        ("eos_token_id", json!(-1)),
        ("eos_token_id", json!([2, -1])),
    ] {
        let message = opened("generation_config.json", &json!({ key: value })).expect_err(key);
        assert!(message.contains(&format!("{key} is ")), "{message}");
    }
    opened("generation_config.json", &json!({ "top_p": 0, "top_k": 40.0, "eos_token_id": null })).unwrap();
}

#[test]
fn end_tokens_beyond_the_vocabulary_are_read() {
    let checkpoint = config(json!({ "eos_token_id": [2, 4096] })).unwrap();
    assert_eq!(checkpoint.config.eos_token_ids, [2, 4096]);
    for value in [json!(-1), json!(1u64 << 32), json!(0.5), json!("2"), json!(true), json!([2, -1]), json!([[2]])] {
        let message = config(json!({ "eos_token_id": value })).unwrap_err();
        assert!(message.contains("eos_token_id is "), "{message}");
    }
    let checkpoint = opened("generation_config.json", &json!({ "eos_token_id": 1_000_000_000 })).unwrap();
    assert_eq!(checkpoint.generation.eos_token_ids, Some(vec![1_000_000_000]));
}

#[test]
fn a_quantization_that_is_null_hides_none() {
    let plan = json!({ "group_size": 64, "bits": 4 });
    config(json!({ "quantization": null, "quantization_config": plan })).unwrap();
    let message =
        config(json!({ "quantization": null, "quantization_config": { "quant_method": "fp8" } })).unwrap_err();
    assert!(message.contains("quantization_config.quant_method"), "{message}");
}

#[test]
fn lists_have_their_length_and_their_values() {
    let config = |keys: Value| Config::parse(keys.to_string().as_bytes(), Path::new("config.json")).unwrap();
    let given = config(json!({ "on": [1, 0, true], "names": ["a", "b"], "null": null }));
    let keys = given.keys();
    assert_eq!(keys.flags("on", 3).unwrap(), Some(vec![true, false, true]));
    assert_eq!(keys.choices("names", 2, &["a", "b", "c"]).unwrap(), Some(vec!["a", "b"]));
    assert_eq!((keys.flags("null", 3).unwrap(), keys.has("null")), (None, false));
    let message = keys.flags("on", 2).unwrap_err().to_string();
    assert!(message.contains("on is [1,0,true], expected a list of 2 values, each true (1) or false (0)"), "{message}");
    let message = keys.choices("names", 2, &["a", "c", "d"]).unwrap_err().to_string();
    assert!(message.contains("expected a list of 2 values, each a, c or d"), "{message}");
    assert!(config(json!({ "on": [2] })).keys().flags("on", 1).is_err());
}

#[test]
fn objects_are_flat_nested_or_mixed() {
    for (object, nesting) in [
        (json!({}), Nesting::Flat),
        (json!({ "a": 1, "b": null }), Nesting::Flat),
        (json!({ "a": {}, "b": null }), Nesting::Nested),
        (json!({ "a": {}, "b": 1 }), Nesting::Mixed),
    ] {
        let config = Config::parse(object.to_string().as_bytes(), Path::new("config.json")).unwrap();
        assert_eq!(config.keys().nesting(), nesting, "{object}");
    }
}
