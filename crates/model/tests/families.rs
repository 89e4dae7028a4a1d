//! Keys of the dense families: what each makes of the blueprint, and the values that are refused.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_checkpoint::Config;
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
