//! GLM-4.5 and 4.6: experts behind the first layers, chosen by sigmoids and a bias that no weight has, beside shared ones.

use super::dense::{self, Defaults};
use super::expert_keys::{self, Names};
use super::glm4;
use crate::blueprint::{Blueprint, ExpertsSpec, MlpPath, QkNorms, ScoringSpec};
use mlx_serving_checkpoint::synth::Shape;
use mlx_serving_checkpoint::{Keys, Result};

const COUNT: &str = "n_routed_experts";
const SHARED: &str = "n_shared_experts";
const DENSE: &str = "first_k_dense_replace";
const FACTOR: &str = "routed_scaling_factor";

#[rustfmt::skip]
pub(super) const SHAPES: [Shape; 2] = [
    Shape {
        name: "glm-4.5-air", hidden: 4096, layers: 46, intermediate: 10_944,
        heads: 96, kv_heads: 8, head_dim: 128, vocab: 151_552,
        numbers: &[
            (COUNT, 128.0), ("num_experts_per_tok", 8.0), ("moe_intermediate_size", 1408.0), (SHARED, 1.0), (DENSE, 1.0),
            (FACTOR, 1.0), (dense::PARTIAL, 0.5),
        ],
        ..Shape::TINY
    },
    Shape {
        name: "tiny-glm4_moe",
        numbers: &[
            (COUNT, 8.0), ("num_experts_per_tok", 2.0), ("moe_intermediate_size", 128.0), (SHARED, 1.0), (DENSE, 1.0),
            (FACTOR, 2.5), (dense::PARTIAL, 0.5),
        ],
        ..Shape::TINY
    },
];

const DEFAULTS: Defaults = Defaults { own: &["use_qk_norm"], ..glm4::DEFAULTS };
const NAMES: Names = Names {
    count: COUNT,
    width: "moe_intermediate_size",
    scoring: ["sigmoid", "noaux_tc"],
    own: &[SHARED, DENSE, FACTOR, "norm_topk_prob"],
};

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let mut model = dense::read(keys, &DEFAULTS)?;
    let (bias, norms) = (keys.flag("attention_bias", false)?, keys.flag("use_qk_norm", false)?);
    for layer in &mut model.layers {
        layer.mixer.qkv_bias = bias;
        layer.mixer.qk_norms = norms.then_some(QkNorms::Heads);
    }
    let experts = expert_keys::read(keys, &model, &NAMES)?;
    let shared = keys.optional_count(SHARED)?.unwrap_or(0);
    let Some(width) = shared.checked_mul(experts.width).filter(|width| *width as u64 <= dense::MAX_DIMENSION) else {
        return Err(keys.bad(SHARED, "a number of shared experts that are at most 1048576 wide together"));
    };
    let Some(first) = keys.optional_count(DENSE)? else {
        return Err(keys.bad(DENSE, "a whole number of at least 0"));
    };
    let experts = ExpertsSpec {
        scoring: ScoringSpec::Sigmoid { bias: "mlp.gate.e_score_correction_bias" },
        // mlx-lm leaves a single weight as it is.
        renormalize: keys.flag("norm_topk_prob", true)? && experts.slots > 1,
        factor: keys.number(FACTOR, Some(1.0), 1e-3..=1e3)? as f32,
        ..experts
    };
    for layer in model.layers.iter_mut().skip(first) {
        (layer.mlp.width, layer.mlp.path) = (width, MlpPath::Shared);
        layer.experts = Some(experts.clone());
    }
    Ok(model)
}
