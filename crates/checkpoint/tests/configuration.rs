//! Keys of `config.json` that all models share, and of `generation_config.json`: each is read, or refused with its name, what was found and
//! what was expected.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_checkpoint::{Checkpoint, Config, GenerationDefaults, LinearFormat, Nesting};
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
        ("repetition_penalty", json!(0.005)),
        ("do_sample", json!("yes")),
        ("eos_token_id", json!(-1)),
        ("eos_token_id", json!([2, -1])),
    ] {
        let message = opened("generation_config.json", &json!({ key: value })).expect_err(key);
        assert!(message.contains(&format!("{key} is ")), "{message}");
    }
    opened("generation_config.json", &json!({ "top_p": 0, "top_k": 40.0, "eos_token_id": null })).unwrap();
}

/// Opens the bundled model with another text of a JSON file.
fn with_text(file: &str, text: &[u8]) -> Result<Checkpoint, String> {
    let dir = tempfile::tempdir().unwrap();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(bundled.join(name), dir.path().join(name)).unwrap();
    }
    std::fs::write(dir.path().join(file), text).unwrap();
    Checkpoint::open(dir.path()).map_err(|error| error.to_string())
}

#[test]
fn sampling_defaults_that_are_no_json_are_left_out_with_a_warning() {
    for text in [&b""[..], b" ", b"{", b"top_k: 5", b"[]", b"null", b"\xff\xfe"] {
        let checkpoint = with_text("generation_config.json", text).unwrap();
        assert_eq!(checkpoint.generation, GenerationDefaults::default());
        let [warning] = checkpoint.warnings() else { panic!("{:?}", checkpoint.warnings()) };
        assert!(warning.contains("generation_config.json is not used"), "{warning}");
    }
    assert!(with_text("generation_config.json", b"{}").unwrap().warnings().is_empty());
}

#[test]
fn a_top_k_of_minus_one_is_read_as_all_tokens() {
    let checkpoint = opened("generation_config.json", &json!({ "top_k": -1 })).unwrap();
    assert_eq!((checkpoint.generation.top_k, checkpoint.warnings()), (Some(0), &[][..]));
}

#[test]
fn a_repetition_penalty_of_zero_is_read_as_none_at_all() {
    let penalty = |value: Value| {
        opened("generation_config.json", &json!({ "repetition_penalty": value }))
            .map(|checkpoint| checkpoint.generation.repetition_penalty)
    };
    assert_eq!(penalty(json!(0)).unwrap(), Some(1.0));
    assert_eq!(penalty(json!(0.01)).unwrap(), Some(0.01));
    assert!(penalty(json!(0.001)).unwrap_err().contains("0.01 to 10"));
}

#[test]
fn ranges_are_told_in_plain_numbers() {
    let message = opened("generation_config.json", &json!({ "top_k": -5 })).unwrap_err();
    assert!(message.contains("expected a number from -1 to 4294967295"), "{message}");
}

#[test]
fn files_are_json_as_python_writes_it() {
    let text = br#"{"time_step_limit": [0.0, Infinity], "a": NaN, "name": "\ud83d", "top_k": 1, "top_k": 7}"#;
    assert_eq!(with_text("generation_config.json", text).unwrap().generation.top_k, Some(7));
    let message = with_text("generation_config.json", br#"{"temperature": NaN}"#).unwrap_err();
    assert!(message.contains(r#"temperature is {"__float__":"NaN"}, expected a number"#), "{message}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit/config.json");
    let config = std::fs::read_to_string(path).unwrap();
    let marked = format!("\u{feff}{}", config.replacen('{', r#"{"x": -Infinity, "y": {"__float__": "Infinity"}, "#, 1));
    assert_eq!(with_text("config.json", marked.as_bytes()).unwrap().config.eos_token_ids.len(), 1);
    let index = br#"{"metadata": {"total_size": 1e999}, "weight_map": {"a": "gone", "a": "model.safetensors"}}"#;
    assert!(with_text("model.safetensors.index.json", index).unwrap().warnings().is_empty());
}

#[test]
fn further_keys_of_a_quantization_are_not_looked_at() {
    let with = |keys: Value| {
        let mut plan = json!({ "group_size": 64, "bits": 4 });
        plan.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        plan
    };
    for keys in [
        json!({ "quant_method": "mlx" }),
        json!({ "quant_method": null }),
        json!({ "quant_method": "awq", "version": "gemm" }),
        json!({ "quant_recipe": "mixed_4_6", "modules_to_not_convert": ["lm_head"], "x": 1, "y": null }),
        json!({ "language_model.model.layers.0.mlp.down_proj": { "group_size": 64, "bits": 8 } }),
        json!({ "vision_tower.proj": { "group_size": 32, "bits": 4, "mode": "mxfp4" } }),
        json!({ "mode": null }),
    ] {
        let checkpoint = config(json!({ "quantization": with(keys) })).unwrap();
        checkpoint.linear("model.layers.0.mlp.down_proj", 256, 704).unwrap();
    }
    config(json!({ "quantization": null, "quantization_config": with(json!({ "quant_method": "mlx" })) })).unwrap();
    let awq = with(json!({ "quant_method": "awq" }));
    let message = config(json!({ "quantization": null, "quantization_config": awq })).unwrap_err();
    assert!(message.contains("quantization_config.quant_method is awq"), "{message}");
}

#[test]
fn what_a_configuration_says_of_a_module_by_name_must_be_true() {
    const MODULE: &str = "model.layers.0.mlp.down_proj";
    let told = |said: Value| {
        let checkpoint = config(json!({ "quantization": { "group_size": 64, "bits": 4, MODULE: said } })).unwrap();
        checkpoint.linear(MODULE, 256, 704).map_err(|error| error.to_string())
    };
    for said in [json!({ "bits": 4 }), json!({ "group_size": 64 }), json!({}), json!(true), json!(null)] {
        let format = told(said.clone()).unwrap_or_else(|error| panic!("{said}: {error}"));
        let LinearFormat::Quantized { quantization, .. } = format else { panic!("{said}: {format:?}") };
        assert_eq!((quantization.group_size, quantization.bits), (64, 4), "{said}");
    }
    for (said, words) in [
        (json!({ "bits": 8 }), "down_proj.weight is U32 [256, 88], expected U32 [256, 176]"),
        (json!({ "group_size": 32 }), "down_proj.scales is BF16 [256, 11], expected F32 or F16 or BF16 [256, 22]"),
        (json!({ "bits": 7 }), "quantization.model.layers.0.mlp.down_proj.bits is 7, expected one of [2, 3, 4"),
        (json!(false), "quantization.model.layers.0.mlp.down_proj is false, expected no such key"),
        (json!("4 bits"), "quantization.model.layers.0.mlp.down_proj is \"4 bits\""),
        (json!({ "mode": "nvfp8" }), "down_proj.mode is \"nvfp8\", expected affine, mxfp4, nvfp4 or mxfp8"),
        (
            json!({ "mode": "nvfp4", "group_size": 32 }),
            "down_proj.group_size is 32, expected 16, which is all that nvfp4 has",
        ),
        (json!({ "mode": "nvfp4" }), "down_proj.scales is BF16 [256, 11], expected U8 [256, 44]"),
    ] {
        let message = told(said.clone()).expect_err(&said.to_string());
        assert!(message.contains(words), "{said}: {message}");
    }
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
