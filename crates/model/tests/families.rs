//! Keys of the dense families: what each makes of the blueprint, and the values that are refused.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_checkpoint::Config;
use mlx_serving_device::ops::{Activation, Growth};
use mlx_serving_model::{Blueprint, Norms, QkNorms, Scaling};
use serde_json::{Value, json};
use std::path::Path;

/// A small model of an architecture with some keys more; `null` removes a key.
fn of(model_type: &str, more: Value) -> Result<Blueprint, String> {
    let mut keys = json!({
        "model_type": model_type, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 131, "rms_norm_eps": 1e-5,
        "rope_theta": 1e4,
    });
    keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Config::parse(keys.to_string().as_bytes(), Path::new("config.json"))
        .and_then(|config| Blueprint::from_config(&config, false))
        .map_err(|error| error.to_string())
}

/// Checks that each value is refused with words that name its key, what it is and what was expected.
fn refused(model_type: &str, cases: &[(Value, &str)]) {
    for (more, words) in cases {
        let message = of(model_type, more.clone()).expect_err(&format!("{model_type} {more}"));
        assert!(message.contains(words) && message.contains(", expected "), "{message}");
    }
}

#[test]
fn norms_lie_where_the_architecture_has_them() {
    let norms = |model_type, more: Value| {
        let layer = of(model_type, more).unwrap().layers.remove(1);
        (layer.mixer.norms, layer.mlp.norms, layer.mixer.qk_norms)
    };
    let at = |before, after| Norms { before, after };
    let usual = (at(Some("input_layernorm"), None), at(Some("post_attention_layernorm"), None), None);
    assert_eq!(norms("llama", json!({})), usual);
    assert_eq!(norms("phi3", json!({})), usual);
    let behind = [at(None, Some("post_attention_layernorm")), at(None, Some("post_feedforward_layernorm"))];
    assert_eq!(norms("olmo2", json!({})), (behind[0], behind[1], Some(QkNorms::Whole)));
    let around = [
        at(Some("input_layernorm"), Some("post_self_attn_layernorm")),
        at(Some("post_attention_layernorm"), Some("post_mlp_layernorm")),
    ];
    assert_eq!(norms("glm4", json!({})), (around[0], around[1], None));
    let gemma = [
        at(Some("input_layernorm"), Some("post_attention_layernorm")),
        at(Some("pre_feedforward_layernorm"), Some("post_feedforward_layernorm")),
    ];
    assert_eq!(norms("gemma3_text", json!({})), (gemma[0], gemma[1], Some(QkNorms::Heads)));
    let offset = |model_type| of(model_type, json!({})).unwrap().norm_offset;
    assert_eq!([offset("gemma3_text"), offset("olmo2")], [1.0, 0.0]);
}

#[test]
fn granites_factors_have_no_defaults() {
    let factors = json!({ "embedding_multiplier": 12, "residual_multiplier": 0.25, "attention_multiplier": 0.015625,
                          "logits_scaling": 8 });
    let with = |key: &str, value: Value| {
        let mut factors = factors.clone();
        factors[key] = value;
        factors
    };
    let model = of("granite", factors.clone()).unwrap();
    let found = model.multipliers;
    assert_eq!(
        (found.embedding, found.residual, found.logits, model.layers[0].mixer.scale),
        (12.0, 0.25, 0.125, 0.015_625)
    );
    refused(
        "granite",
        &[
            (with("embedding_multiplier", json!(null)), "embedding_multiplier is missing"),
            (with("attention_multiplier", json!("1")), "attention_multiplier is \"1\""),
            (with("residual_multiplier", json!(0)), "residual_multiplier is 0, expected a number from 0.01 to 100"),
            (with("logits_scaling", json!(-8)), "logits_scaling is -8"),
            (with("query_pre_attn_scalar", json!(64)), "query_pre_attn_scalar is 64"),
        ],
    );
    refused("olmo2", &[(factors, "attention_multiplier is 0.015625, expected no such key")]);
}

#[test]
fn a_share_of_each_head_rotates_where_an_architecture_knows_of_it() {
    let dims = |model_type, more| of(model_type, more).unwrap().ropes[0].dims;
    assert_eq!([dims("phi3", json!({})), dims("glm4", json!({})), dims("olmo2", json!({}))], [16, 8, 16]);
    for share in [
        json!({ "partial_rotary_factor": 0.75 }),
        json!({ "rope_theta": null, "rope_parameters": { "rope_theta": 1e4, "partial_rotary_factor": 0.75 } }),
        json!({ "partial_rotary_factor": 0.75, "rope_scaling": { "type": "linear", "factor": 2, "partial_rotary_factor": 0.75 } }),
    ] {
        assert_eq!([dims("phi3", share.clone()), dims("glm4", share)], [12, 12]);
    }
    let whole = "partial_rotary_factor is 0.5, expected 1, or no such key";
    refused("olmo2", &[(json!({ "partial_rotary_factor": 0.5 }), whole)]);
    refused(
        "phi3",
        &[
            (json!({ "partial_rotary_factor": 0.2 }), "partial_rotary_factor is 0.2, expected a share of a head"),
            (json!({ "partial_rotary_factor": 0 }), "partial_rotary_factor is 0, expected a share of a head"),
            (json!({ "partial_rotary_factor": 1.5 }), "partial_rotary_factor is 1.5, expected a number from 0 to 1"),
            (
                json!({ "partial_rotary_factor": 0.5, "rope_parameters": { "partial_rotary_factor": 0.75 } }),
                "rope_parameters is {\"partial_rotary_factor\":0.75}, expected the same",
            ),
        ],
    );
    let pairs = |more| of("glm4", more).unwrap().ropes[0].interleaved;
    assert!(pairs(json!({})) && !pairs(json!({ "rope_traditional": false })));
    refused(
        "glm4",
        &[
            (json!({ "head_dim": null }), "head_dim is missing"),
            (json!({ "rope_theta": null }), "rope_theta is missing"),
        ],
    );
}

#[test]
fn longrope_has_a_factor_for_each_pair_and_a_temperature() {
    let long = |more: Value| {
        let mut scaling =
            json!({ "type": "longrope", "long_factor": [1, 2, 3, 4, 5, 6], "short_factor": [1, 1, 1, 1, 1, 1] });
        scaling.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "rope_scaling": scaling, "partial_rotary_factor": 0.75, "max_position_embeddings": 4096,
                "original_max_position_embeddings": 64 })
    };
    let read = |more| match of("phi3", long(more)).unwrap().ropes.remove(0).scaling {
        Scaling::Long { factors, attention } => (factors, attention),
        other => panic!("{other:?}"),
    };
    let (factors, attention) = read(json!({}));
    // 64 times the context of 64: √(1 + 1).
    assert!(factors == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] && (attention - 2f64.sqrt()).abs() < 1e-12);
    assert_eq!(read(json!({ "type": "su" })).1, attention);
    assert_eq!(read(json!({ "attention_factor": 1.5 })).1, 1.5);
    assert_eq!(read(json!({ "factor": 0.5 })).1, 1.0);
    refused(
        "phi3",
        &[
            (long(json!({ "long_factor": [1, 2] })), "long_factor is [1,2], expected a list of 6 values"),
            (long(json!({ "long_factor": [1, 2, 3, 4, 5, 0] })), "each a number from 0.01 to 10000"),
            (long(json!({ "long_factor": null })), "rope_scaling.long_factor is missing, expected a list of 6 numbers"),
            (
                long(json!({ "original_max_position_embeddings": 128 })),
                "rope_scaling.original_max_position_embeddings is 128",
            ),
            (long(json!({ "long_mscale": 1.2 })), "rope_scaling.long_mscale is 1.2, expected nothing"),
        ],
    );
}

#[test]
fn what_the_families_lack_is_refused() {
    refused(
        "phi3",
        &[
            (json!({ "attention_bias": true }), "attention_bias is true, expected false"),
            (json!({ "hidden_act": "gelu" }), "hidden_act is \"gelu\""),
        ],
    );
    let windows = |more| of("phi3", more).unwrap().layers[0].mixer.window;
    assert_eq!(
        [windows(json!({ "sliding_window": 2047 })), windows(json!({ "sliding_window": null }))],
        [Some(2047), None]
    );
}

/// Keys of a Gemma 3 of six layers.
fn gemma(more: Value) -> Value {
    let mut keys = json!({ "num_hidden_layers": 6, "rope_theta": null });
    keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    keys
}

#[test]
fn gemmas_layers_slide_but_for_each_sixth_and_turn_by_a_base_of_their_own() {
    let model = of("gemma3_text", gemma(json!({ "rope_scaling": { "rope_type": "linear", "factor": 8 } }))).unwrap();
    let windows: Vec<_> = model.layers.iter().map(|layer| layer.mixer.window).collect();
    assert_eq!(windows, [Some(512), Some(512), Some(512), Some(512), Some(512), None]);
    let ropes: Vec<_> = model.layers.iter().map(|layer| layer.mixer.rope.unwrap()).collect();
    assert_eq!(ropes, [1, 1, 1, 1, 1, 0]);
    let found: Vec<_> = model.ropes.iter().map(|rope| (rope.theta, rope.scaling.clone())).collect();
    assert_eq!(found, [(1e6, Scaling::Linear { factor: 8.0 }), (1e4, Scaling::None)]);
    let layer = &model.layers[0];
    assert_eq!(
        (layer.mixer.scale, layer.mlp.activation, model.multipliers.embedding),
        (0.0625, Activation::GeluTanh, 8.0)
    );
    // Said by type, as newer files have it.
    let typed = json!({ "layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2, "sliding_window": 9,
                        "rope_parameters": { "full_attention": { "rope_type": "linear", "factor": 8, "rope_theta": 1e6 },
                                             "sliding_attention": { "rope_type": "default", "rope_theta": 5e3 } } });
    let model = of("gemma3_text", gemma(typed)).unwrap();
    let windows: Vec<_> = model.layers.iter().map(|layer| (layer.mixer.window, layer.mixer.rope)).collect();
    assert_eq!(windows, [(Some(9), Some(1)), (None, Some(0))]);
    assert_eq!([model.ropes[0].theta, model.ropes[1].theta], [1e6, 5e3]);
    let every = of("gemma3_text", gemma(json!({ "sliding_window_pattern": 3, "query_pre_attn_scalar": 64 }))).unwrap();
    assert_eq!(every.layers[2].mixer.window, None);
    assert_eq!(every.layers[0].mixer.scale, 0.125);
}

#[test]
fn gemmas_other_kinds_are_refused() {
    let types = ["full_attention", "sliding_attention"];
    refused(
        "gemma3_text",
        &[
            (json!({ "hidden_activation": "gelu" }), "hidden_activation is \"gelu\", expected \"gelu_pytorch_tanh\""),
            (json!({ "hidden_act": "silu" }), "hidden_act is \"silu\", expected \"gelu_pytorch_tanh\""),
            (json!({ "final_logit_softcapping": 30 }), "final_logit_softcapping is 30"),
            (json!({ "use_bidirectional_attention": true }), "use_bidirectional_attention is true"),
            (json!({ "query_pre_attn_scalar": 0 }), "query_pre_attn_scalar is 0, expected a number from 0.001"),
            (json!({ "sliding_window_pattern": 0 }), "sliding_window_pattern is 0, expected a whole number from 1"),
            (
                json!({ "sliding_window_pattern": 2, "layer_types": types }),
                "sliding_window_pattern is 2, expected what layer_types says",
            ),
            (json!({ "rope_local_base_freq": 0 }), "rope_local_base_freq is 0, expected a number from 2"),
        ],
    );
}

#[test]
fn queries_grow_where_rotary_parameters_say_so() {
    let keys = |more: Value| {
        let mut rope = json!({ "rope_type": "yarn", "factor": 16, "rope_theta": 1e6,
                               "original_max_position_embeddings": 16384, "llama_4_scaling_beta": 0.1 });
        rope.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "rope_theta": null, "rope_parameters": rope })
    };
    let growth = |more| of("ministral3", keys(more)).unwrap().ropes[0].growth;
    assert_eq!(growth(json!({})), Some(Growth { beta: 0.1, every: 16384 }));
    assert_eq!(growth(json!({ "llama_4_scaling_beta": null })), None);
    refused(
        "ministral3",
        &[
            (
                keys(json!({ "llama_4_scaling_beta": -1 })),
                "rope_parameters.llama_4_scaling_beta is -1, expected a number",
            ),
            (keys(json!({ "original_max_position_embeddings": 0.5 })), "original_max_position_embeddings is 0.5"),
            (keys(json!({ "original_max_position_embeddings": null })), "original_max_position_embeddings is missing"),
            (json!({ "rope_theta": null }), "rope_theta is missing"),
            (json!({ "attention_bias": true }), "attention_bias is true"),
        ],
    );
    refused("llama", &[(keys(json!({})), "llama_4_scaling_beta is 0.1, expected nothing")]);
}
