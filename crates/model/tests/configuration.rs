//! Keys of `config.json`: each is read, or refused with its name, what was found and what was expected.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_checkpoint::Config;
use mlx_serving_model::{Blueprint, HeadWeights, Rope, Scaling};
use serde_json::{Value, json};
use std::path::Path;

/// The bundled model's blueprint with some keys of its `config.json` changed; `null` removes a key.
fn config(changes: Value) -> Result<Blueprint, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    Config::parse(config.to_string().as_bytes(), &path)
        .and_then(|config| Blueprint::from_config(&config, false))
        .map_err(|error| {
            let message = error.to_string();
            assert!(message.contains("config.json") && message.contains(", expected "), "{message}");
            message
        })
}

#[test]
fn numbers_that_no_model_has() {
    let numbers = |key: &str| {
        [json!(0), json!(-1), json!(1e30), json!(1e308), json!(1e-300), json!("1"), json!([1])]
            .map(|v| (key.to_owned(), v))
    };
    let mut cases: Vec<(String, Value)> = [
        "rms_norm_eps",
        "rope_theta",
        "hidden_size",
        "num_hidden_layers",
        "vocab_size",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "head_dim",
        "max_position_embeddings",
    ]
    .iter()
    .flat_map(|key| numbers(key))
    .collect();
    cases.extend(
        [json!(-1), json!(1u64 << 32), json!(0.5), json!("2"), json!(true), json!([2, -1]), json!([[2]])]
            .map(|v| ("eos_token_id".to_owned(), v)),
    );
    for (key, value) in cases {
        let message = config(json!({ &key: value })).expect_err(&format!("{key} {value}"));
        assert!(message.contains(&format!("{key} is ")), "{message}");
    }
    for (kind, key) in [
        ("linear", "factor"),
        ("dynamic", "factor"),
        ("llama3", "factor"),
        ("yarn", "factor"),
        ("llama3", "low_freq_factor"),
        ("llama3", "high_freq_factor"),
        ("llama3", "original_max_position_embeddings"),
        ("yarn", "beta_fast"),
        ("yarn", "beta_slow"),
        ("yarn", "original_max_position_embeddings"),
        ("yarn", "attention_factor"),
        ("yarn", "attn_factor"),
        ("yarn", "extrapolation_factor"),
    ] {
        for (key, value) in numbers(key) {
            for place in ["rope_scaling", "rope_parameters"] {
                let mut rope = json!({ "rope_type": kind, "factor": 4.0 });
                rope[&key] = value.clone();
                let message = config(json!({ place: rope })).expect_err(&format!("{place} {kind} {key} {value}"));
                assert!(message.contains(&format!("{place}.{key} is ")), "{message}");
            }
        }
    }
    for (key, value) in [("mscale", -1.0), ("mscale", 1e30), ("mscale_all_dim", -11.0)] {
        config(json!({ "rope_scaling": { "type": "yarn", "factor": 4.0, key: value } })).expect_err(key);
    }
    config(json!({ "rope_scaling": { "type": "yarn", "factor": 4.0, "beta_fast": 1, "beta_slow": 2 } })).unwrap_err();
}

/// The one rotary embedding.
fn rope(changes: Value) -> Rope {
    let [rope] = &config(changes).unwrap().ropes[..] else { panic!("not one") };
    rope.clone()
}

#[test]
fn rotary_parameters_are_read_wherever_they_are_nested() {
    let linear = json!({ "rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0 });
    let expected = rope(json!({ "rope_theta": 5000.0, "rope_scaling": { "type": "linear", "factor": 4.0 } }));
    assert_eq!((expected.theta, &expected.scaling), (5000.0, &Scaling::Linear { factor: 4.0 }));
    for nested in [
        linear.clone(),
        json!({ "full_attention": linear }),
        json!({ "full_attention": linear, "sliding_attention": { "rope_theta": 7.0 } }),
        json!({ "full_attention": linear, "sliding_attention": null }),
    ] {
        for place in ["rope_parameters", "rope_scaling"] {
            assert_eq!(rope(json!({ "rope_theta": null, place: nested })), expected, "{nested}");
        }
    }
    // A mistral whose layers are of both types.
    let mixed = |own: Value| {
        let types = [
            "full_attention",
            "sliding_attention",
            "full_attention",
            "sliding_attention",
            "full_attention",
            "full_attention",
        ];
        json!({ "model_type": "mistral", "rope_theta": null, "sliding_window": 64, "layer_types": types,
                "rope_parameters": { "full_attention": linear, "sliding_attention": own } })
    };
    assert_eq!(rope(mixed(linear.clone())), expected);
    let two = config(mixed(json!({ "rope_type": "default", "rope_theta": 7000.0 }))).unwrap();
    let other = Rope { theta: 7000.0, scaling: Scaling::None, ..expected.clone() };
    assert_eq!(two.ropes, [expected, other], "layers without a window, then those with one");
    let of_layers: Vec<_> = two.layers.iter().map(|layer| layer.mixer.rope).collect();
    assert_eq!(of_layers, [0, 1, 0, 1, 0, 0].map(Some));
    let message = config(mixed(Value::Null)).unwrap_err();
    assert!(message.contains("rope_parameters.sliding_attention is missing"), "{message}");
}

#[test]
fn rotary_parameters_that_disagree_or_are_unknown() {
    let yarn = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512 });
    let with = |key: &str, value: Value| {
        let mut yarn = yarn.clone();
        yarn[key] = value;
        json!({ "rope_parameters": yarn })
    };
    config(with("rope_theta", json!(10_000.0))).unwrap();
    for (changes, key) in [
        (with("rope_theta", json!(500_000.0)), "rope_parameters"),
        (with("truncate", json!(false)), "rope_parameters.truncate"),
        (with("partial_rotary_factor", json!(0.5)), "rope_parameters.partial_rotary_factor"),
        (with("llama_4_scaling_beta", json!(0.1)), "rope_parameters.llama_4_scaling_beta"),
        (with("long_factor", json!([1.0])), "rope_parameters.long_factor"),
        (with("extrapolation_factor", json!(2)), "rope_parameters.extrapolation_factor"),
        (with("type", json!("linear")), "rope_parameters.rope_type"),
        (with("full_attention", json!({})), "rope_parameters"),
        (
            json!({ "rope_scaling": yarn, "rope_parameters": { "rope_type": "linear", "factor": 4.0 } }),
            "rope_parameters",
        ),
        (json!({ "rope_scaling": yarn, "original_max_position_embeddings": 1024 }), "original_max_position_embeddings"),
        (json!({ "rope_scaling": { "factor": 4.0 } }), "rope_scaling.rope_type"),
        (json!({ "rope_scaling": { "type": "longrope", "factor": 4.0 } }), "rope_scaling.long_factor"),
        (json!({ "rope_scaling": 4.0 }), "rope_scaling"),
    ] {
        let message = config(changes.clone()).expect_err(&changes.to_string());
        assert!(message.contains(&format!("{key} is ")), "{message}");
    }
    config(with("extrapolation_factor", json!(1))).unwrap();
    config(with("type", json!("yarn"))).unwrap();
}

#[test]
fn a_temperature_of_attention_is_given_or_follows_from_the_factor_and_is_multiplied() {
    let attention = |keys: Value| {
        let mut yarn = json!({ "rope_type": "yarn", "factor": 4.0 });
        yarn.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        match rope(json!({ "rope_scaling": yarn })).scaling {
            Scaling::Yarn { attention, .. } => attention,
            other => panic!("{other:?}"),
        }
    };
    let from_factor = 0.1 * 4f64.ln() + 1.0;
    for (keys, expected) in [
        (json!({}), from_factor),
        (json!({ "factor": 0.5 }), 1.0),
        (json!({ "mscale": 0.7, "mscale_all_dim": 0.7 }), 1.0),
        (json!({ "mscale": 2.0 }), 0.2 * 4f64.ln() + 1.0),
        (json!({ "attention_factor": 1.5, "mscale": 2.0 }), 1.5),
        (json!({ "attn_factor": 0.5 }), 0.5 * from_factor),
        (json!({ "attn_factor": 2.0, "attention_factor": 1.5 }), 3.0),
        (json!({ "attn_factor": null, "extrapolation_factor": 1.0 }), from_factor),
    ] {
        let found = attention(keys.clone());
        assert!((found - expected).abs() < 1e-12, "{keys}: {found} is not {expected}");
    }
}

#[test]
fn a_context_before_stretching_may_stand_outside_of_the_rotary_parameters() {
    let original = |changes: Value| match rope(changes).scaling {
        Scaling::Yarn { original, .. } | Scaling::Llama3 { original, .. } => original,
        other => panic!("{other:?}"),
    };
    for kind in ["yarn", "llama3"] {
        for place in ["rope_scaling", "rope_parameters"] {
            let scaling = json!({ "rope_type": kind, "factor": 4.0 });
            let nested = json!({ "full_attention": scaling });
            for scaling in [scaling, nested] {
                let changes = json!({ place: scaling, "original_max_position_embeddings": 1024 });
                assert_eq!(original(changes), 1024.0, "{kind} in {place}");
            }
        }
    }
    let inside = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512 });
    assert_eq!(original(json!({ "rope_scaling": inside, "original_max_position_embeddings": 512 })), 512.0);
    assert_eq!(original(json!({ "rope_scaling": { "type": "yarn", "factor": 4.0 } })), 4096.0);
}

#[test]
fn keys_of_relatives_that_change_the_result() {
    for (key, value) in [
        ("partial_rotary_factor", json!(0.5)),
        ("rope_interleaved", json!(true)),
        ("rope_local_base_freq", json!(10_000.0)),
        ("scale_depth", json!(1.4)),
        ("logits_scaling", json!(8)),
        ("logit_scale", json!(0.0625)),
        ("attention_multiplier", json!(0.1)),
        ("embedding_multiplier", json!(12)),
        ("residual_multiplier", json!(0.2)),
        ("query_pre_attn_scalar", json!(256)),
        ("attn_logit_softcapping", json!(50.0)),
        ("final_logit_softcapping", json!(30.0)),
        ("clip_qkv", json!(8)),
        ("num_local_experts", json!(8)),
        ("is_causal", json!(false)),
        ("use_bidirectional_attention", json!(true)),
        ("text_config", json!({ "hidden_size": 8 })),
        ("hidden_act", json!("gelu")),
        ("hidden_act", json!(1)),
    ] {
        let message = config(json!({ key: value })).expect_err(key);
        assert!(message.contains(&format!("{key} is ")), "{message}");
    }
    config(json!({ "partial_rotary_factor": 1.0, "logit_scale": 1, "is_causal": true, "num_experts": 0, "rope_interleaved": false,
                   "final_logit_softcapping": null, "text_config": null })).unwrap();
    let message = config(json!({ "model_type": "qwen3", "head_dim": 64, "attention_bias": true })).unwrap_err();
    assert!(message.contains("attention_bias is true"), "{message}");
    let message = config(json!({ "model_type": "qwen3", "head_dim": null })).unwrap_err();
    assert!(message.contains("head_dim is missing, expected a whole number from 1 to 4096"), "{message}");
    let message = config(json!({ "num_key_value_heads": null })).unwrap_err();
    assert!(message.contains("num_key_value_heads is missing, expected a whole number"), "{message}");
}

#[test]
fn an_architecture_that_is_unknown_lists_those_known() {
    for name in [json!("gpt9"), json!(7), json!(null)] {
        let message = config(json!({ "model_type": name })).unwrap_err();
        assert!(message.contains("model_type is ") && message.contains("qwen2, qwen3, llama, mistral"), "{message}");
    }
}

#[test]
fn heads_that_do_not_divide() {
    let message = config(json!({ "num_key_value_heads": 3 })).unwrap_err();
    assert!(
        message.contains("num_key_value_heads is 3, expected a divisor of num_attention_heads, which is 4"),
        "{message}"
    );
}

#[test]
fn the_bundled_model_is_what_its_card_says() {
    let model = config(json!({})).unwrap();
    assert_eq!((model.layers.len(), model.hidden, model.vocab, model.head), (6, 256, 4096, Some(HeadWeights::Tied)));
    for layer in &model.layers {
        let mixer = &layer.mixer;
        assert_eq!((mixer.heads, mixer.kv_heads, mixer.head_dim, mixer.window), (4, 2, 64, None));
        assert!(
            mixer.rope == Some(0) && mixer.qkv_bias && !mixer.o_bias && mixer.qk_norms.is_none() && !layer.mlp.bias
        );
    }
    assert_eq!((model.ropes[0].theta, &model.ropes[0].scaling), (10_000.0, &Scaling::None));
}

/// Quirks of each architecture that the others do not share.
#[test]
fn architectures_differ_in_their_defaults_and_quirks() {
    let keys = json!({ "tie_word_embeddings": null, "rope_theta": 5000, "head_dim": 64, "attention_bias": null,
                       "max_position_embeddings": null, "sliding_window": 32 });
    let of = |name: &str, more: Value| {
        let mut keys = keys.clone();
        keys["model_type"] = json!(name);
        keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config(keys).unwrap()
    };
    let told = |model: Blueprint| {
        let mixer = &model.layers[0].mixer;
        (
            model.head == Some(HeadWeights::Tied),
            model.max_positions,
            mixer.window,
            mixer.qkv_bias,
            mixer.o_bias,
            mixer.qk_norms.is_some(),
        )
    };
    assert_eq!(told(of("qwen2", json!({}))), (true, 32_768, None, true, false, false));
    assert_eq!(told(of("qwen3", json!({}))), (true, 32_768, None, false, false, true));
    assert_eq!(told(of("llama", json!({}))), (true, 4096, None, false, false, false));
    assert_eq!(told(of("mistral", json!({}))), (true, 4096, Some(32), false, false, false));
    assert_eq!(told(of("llama", json!({ "attention_bias": true }))), (true, 4096, None, true, true, false));
    let theta = |name, theta: Value| of(name, json!({ "rope_theta": theta })).ropes[0].theta;
    assert_eq!([theta("qwen2", json!(null)), theta("llama", json!(null)), theta("qwen3", json!(7))], [1e6, 1e4, 7.0]);
    assert_eq!(of("llama", json!({ "num_key_value_heads": null })).layers[0].mixer.kv_heads, 4);
    for (name, changes) in [
        ("qwen2", json!({ "use_sliding_window": true, "max_window_layers": 5 })),
        ("qwen3", json!({ "use_sliding_window": true, "max_window_layers": 5 })),
        ("qwen3", json!({ "rope_theta": null })),
        ("llama", json!({ "layer_types": ["full_attention"] })),
        ("mistral", json!({ "layer_types": vec!["sliding_attention"; 6], "sliding_window": null })),
    ] {
        let mut keys = keys.clone();
        keys["model_type"] = json!(name);
        keys.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        config(keys).expect_err(&changes.to_string());
    }
}
