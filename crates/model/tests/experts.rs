//! Models with experts: their keys, what is refused of their checkpoints, and bits that depend on no company.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Loaded, Narrow, Part, cpu, goldens, load, try_load};
use mlx_serving_checkpoint::Config;
use mlx_serving_device::Arithmetic;
use mlx_serving_model::{Blueprint, ExpertsSpec, KvCache, MlpPath, QkNorms, ScoringSpec, Scratch};
use serde_json::{Map, Value, json};
use std::path::Path;

/// A small model of an architecture with some keys more; `null` removes a key.
fn of(model_type: &str, more: Value) -> Result<Blueprint, String> {
    let mut keys = json!({
        "model_type": model_type, "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 131, "rms_norm_eps": 1e-5,
        "rope_theta": 1e4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    });
    let counts = match model_type {
        "qwen3_moe" => json!({ "num_experts": 8 }),
        "mixtral" => json!({ "num_local_experts": 8 }),
        _ => json!({ "n_routed_experts": 8, "first_k_dense_replace": 1 }),
    };
    for part in [counts, more] {
        keys.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
    }
    Config::parse(keys.to_string().as_bytes(), Path::new("config.json"))
        .and_then(|config| Blueprint::from_config(&config, false))
        .map_err(|error| error.to_string())
}

fn experts(model_type: &str, more: Value) -> ExpertsSpec {
    of(model_type, more).unwrap().layers.pop().unwrap().experts.unwrap()
}

#[test]
fn layers_have_experts_where_the_configuration_says() {
    let sparse = |model_type, more| {
        let layers = of(model_type, more).unwrap().layers;
        let each = layers.iter().map(|layer| (layer.experts.is_some(), layer.mlp.width, layer.mlp.path));
        each.collect::<Vec<_>>()
    };
    let (dense, own) = ((false, 128, MlpPath::Own), (true, 0, MlpPath::Own));
    assert_eq!(sparse("qwen3_moe", json!({})), [own; 4]);
    assert_eq!(sparse("qwen3_moe", json!({ "decoder_sparse_step": 2 })), [dense, own, dense, own]);
    assert_eq!(sparse("qwen3_moe", json!({ "mlp_only_layers": [0, 3] })), [dense, own, own, dense]);
    assert_eq!(sparse("qwen3_moe", json!({ "num_experts": 0 })), [dense; 4]);
    assert_eq!(sparse("mixtral", json!({})), [own; 4]);
    let shared = (true, 64, MlpPath::Shared);
    assert_eq!(sparse("glm4_moe", json!({ "n_shared_experts": 2 })), [dense, shared, shared, shared]);
    assert_eq!(sparse("glm4_moe", json!({ "first_k_dense_replace": 9 })), [dense; 4]);
}

#[test]
fn experts_are_chosen_and_weighed_as_the_configuration_says() {
    let qwen = experts("qwen3_moe", json!({}));
    assert_eq!((qwen.count, qwen.slots, qwen.width, qwen.renormalize), (8, 2, 32, false));
    assert_eq!((qwen.scoring, qwen.factor, qwen.router), (ScoringSpec::Softmax, 1.0, "mlp.gate"));
    assert!(experts("qwen3_moe", json!({ "norm_topk_prob": true })).renormalize);
    let mixtral = experts("mixtral", json!({}));
    assert_eq!((mixtral.width, mixtral.renormalize, mixtral.router), (128, true, "block_sparse_moe.gate"));
    let glm = experts("glm4_moe", json!({ "routed_scaling_factor": 2.5 }));
    assert_eq!((glm.factor, glm.renormalize), (2.5, true));
    assert_eq!(glm.scoring, ScoringSpec::Sigmoid { bias: "mlp.gate.e_score_correction_bias" });
    // A single weight stays as it is.
    assert!(!experts("glm4_moe", json!({ "num_experts_per_tok": 1 })).renormalize);
    let norms = |more| of("glm4_moe", more).unwrap().layers[0].mixer.qk_norms;
    assert_eq!([norms(json!({})), norms(json!({ "use_qk_norm": true }))], [None, Some(QkNorms::Heads)]);
}

#[test]
fn what_no_experts_can_be_is_refused() {
    for (model_type, more, words) in [
        (
            "qwen3_moe",
            json!({ "num_experts_per_tok": 9 }),
            "num_experts_per_tok is 9, expected a whole number from 1 to num_experts, which is 8",
        ),
        (
            "mixtral",
            json!({ "num_experts_per_tok": 9 }),
            "expected a whole number from 1 to num_local_experts, which is 8",
        ),
        ("qwen3_moe", json!({ "num_experts_per_tok": 0 }), "num_experts_per_tok is 0, expected"),
        ("qwen3_moe", json!({ "num_experts_per_tok": null }), "num_experts_per_tok is missing, expected"),
        ("qwen3_moe", json!({ "num_experts": 1025 }), "num_experts is 1025, expected a whole number from 1 to 1024"),
        ("qwen3_moe", json!({ "num_experts": -1 }), "num_experts is -1, expected"),
        ("mixtral", json!({ "num_local_experts": 0 }), "num_local_experts is 0, expected"),
        (
            "qwen3_moe",
            json!({ "moe_intermediate_size": 40 }),
            "moe_intermediate_size is 40, expected a multiple of 16, such as 48",
        ),
        ("mixtral", json!({ "hidden_size": 72 }), "hidden_size is 72, expected a multiple of 16, such as 80"),
        (
            "qwen3_moe",
            json!({ "mlp_only_layers": [4] }),
            "mlp_only_layers is [4], expected a list of whole numbers from 0 to 3",
        ),
        ("qwen3_moe", json!({ "mlp_only_layers": 1 }), "mlp_only_layers is 1, expected a list"),
        ("qwen3_moe", json!({ "decoder_sparse_step": 0 }), "decoder_sparse_step is 0, expected"),
        (
            "qwen3_moe",
            json!({ "shared_expert_intermediate_size": 64 }),
            "shared_expert_intermediate_size is 64, expected 0, or no such key",
        ),
        ("glm4_moe", json!({ "n_group": 2 }), "n_group is 2, expected 1, or no such key"),
        ("glm4_moe", json!({ "topk_method": "greedy" }), "topk_method is \"greedy\", expected noaux_tc"),
        ("glm4_moe", json!({ "scoring_func": "softmax" }), "scoring_func is \"softmax\", expected sigmoid"),
        ("glm4_moe", json!({ "first_k_dense_replace": null }), "first_k_dense_replace is missing, expected"),
        ("glm4_moe", json!({ "n_shared_experts": 1u64 << 40 }), "n_shared_experts is 1099511627776, expected"),
        ("llama", json!({ "num_experts": 8 }), "num_experts is 8, expected 0"),
    ] {
        let message = of(model_type, more.clone()).expect_err(&format!("{model_type} {more}"));
        assert!(message.contains(words), "{message}");
    }
}

/// A golden checkpoint with a header that `change` has changed.
fn changed(case: &str, change: impl FnOnce(&mut Map<String, Value>)) -> tempfile::TempDir {
    let (dir, from) = (tempfile::tempdir().unwrap(), goldens().join(case));
    std::fs::copy(from.join("config.json"), dir.path().join("config.json")).unwrap();
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..end]).unwrap();
    change(&mut header);
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[end..]].concat();
    std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
    dir
}

/// A change of a header.
type Change = Box<dyn FnOnce(&mut Map<String, Value>)>;

/// The last layer's, so that everything else is loaded before it.
const GATE: &str = "model.layers.1.mlp.switch_mlp.gate_proj";

#[test]
fn stacks_that_are_not_as_they_must_be_are_refused_before_anything_is_allocated() {
    let shape = |name: &str, shape: Value| {
        let name = format!("{GATE}.{name}");
        move |header: &mut Map<String, Value>| header[&name]["shape"] = shape
    };
    let cases: [(Change, &str); 6] = [
        // Four experts twice as wide, and two matrices as one.
        (Box::new(shape("weight", json!([4, 128, 8]))), "gate_proj.weight is U32 [4, 128, 8], expected U32 [8, 64, 8]"),
        (Box::new(shape("weight", json!([512, 8]))), "gate_proj.weight is U32 [512, 8]"),
        (
            Box::new(shape("scales", json!([8, 1, 64]))),
            "gate_proj.weight is U32 [8, 64, 8] with scales of BF16 [8, 1, 64]",
        ),
        (
            Box::new(|header| header[&format!("{GATE}.scales")]["dtype"] = json!("I16")),
            "gate_proj.scales is I16 [8, 64, 1], expected F32 or F16 or BF16 [8, 64, 1]",
        ),
        (
            Box::new(|header| {
                for tensor in ["weight", "scales", "biases"] {
                    let entry = header.remove(&format!("{GATE}.{tensor}")).unwrap();
                    header.insert(format!("model.layers.1.mlp.experts.0.gate_proj.{tensor}"), entry);
                }
            }),
            "mlp.experts.0.gate_proj.biases is a tensor of one expert, and there is no model.layers.1.mlp.switch_mlp.gate_proj.weight of \
             all of them; convert the model with mlx_lm.convert",
        ),
        (
            Box::new(|header| {
                let entry = header.remove("model.norm.weight").unwrap();
                header.insert(format!("{GATE}.bias"), entry);
            }),
            "gate_proj.bias does not fit config.json, by which experts have no bias",
        ),
    ];
    for (change, words) in cases {
        let (dir, device) = (changed("qwen3_moe", change), cpu(Arithmetic::Exact));
        let Err(error) = try_load(dir.path(), device.clone()) else { panic!("loaded: {words}") };
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(device.counters().allocations, 0, "{words}");
    }
    let short = Narrow::device(cpu(Arithmetic::Exact), |info| info.max_buffer_len = 8 << 10);
    let Err(error) = try_load(&goldens().join("qwen3_moe"), short) else { panic!("loaded") };
    assert!(error.to_string().contains("switch_mlp.gate_proj takes") && error.to_string().contains("8192"), "{error}");
}

const CASES: [&str; 5] =
    ["qwen3_moe", "qwen3_moe-mixed-layers", "qwen3_moe-dense-f16", "mixtral-one-of-four", "glm4_moe-two-shared"];

fn tokens(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 37 + seed * 11 + i * i % 7) % 131).collect()
}

#[test]
fn prompts_have_the_same_bits_in_chunks_of_every_size() {
    for case in CASES {
        for arithmetic in [Arithmetic::Exact, Arithmetic::Fast] {
            let mut model = load(&goldens().join(case), cpu(arithmetic));
            let tokens = tokens(41, 1);
            let whole = model.logits(&tokens, 41, 64);
            for chunk in 1..=40 {
                // Not assert_eq: it would print thousands of values.
                assert!(model.logits(&tokens, 41, chunk) == whole, "{case}, {arithmetic:?}, {chunk} at a time");
            }
        }
    }
}

#[test]
fn sequences_have_the_same_bits_alone_and_in_a_batch_of_32() {
    const COUNT: usize = 32;
    for case in CASES {
        for arithmetic in [Arithmetic::Exact, Arithmetic::Fast] {
            let mut model: Loaded = load(&goldens().join(case), cpu(arithmetic));
            let sequences: Vec<Vec<u32>> = (0..COUNT).map(|i| tokens(1 + i % 7, i as u32)).collect();
            let alone: Vec<f32> = sequences.iter().flat_map(|s| model.logits(s, s.len(), 64)).collect();
            let rows = sequences.iter().map(Vec::len).sum();
            let (blueprint, allocate) = (model.model.blueprint(), model.layer.allocate.as_ref());
            let cache = KvCache::new(blueprint, model.device.as_ref(), allocate, COUNT).unwrap();
            let scratch = Scratch::new(blueprint, model.device.as_ref(), allocate, rows, rows).unwrap();
            let parts: Vec<Part<'_>> = (0..)
                .zip(&sequences)
                .map(|(i, tokens)| Part { tokens, start: 0, prompt: tokens.len(), blocks: vec![i] })
                .collect();
            assert!(model.step(&parts, &cache, &scratch) == alone, "{case}, {arithmetic:?}");
        }
    }
}
