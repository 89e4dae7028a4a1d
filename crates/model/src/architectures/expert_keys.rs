//! Keys of experts.

use super::dense::MAX_DIMENSION;
use crate::blueprint::{Blueprint, ExpertsSpec, ScoringSpec};
use mlx_serving_checkpoint::{Keys, Result};
use mlx_serving_device::ops::{Experts, Route};

/// Paths of stacks under a layer, as mlx-lm names most.
pub(super) const SWITCH_MLP: [&str; 3] =
    ["mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj", "mlp.switch_mlp.down_proj"];

/// Keys that change what experts compute, each with the number that asks for nothing: an architecture that has one reads it itself.
const RELATIVES: [(&str, Option<f64>); 15] = [
    ("n_shared_experts", Some(0.0)),
    ("shared_expert_intermediate_size", Some(0.0)),
    ("n_group", Some(1.0)),
    ("topk_group", Some(1.0)),
    ("routed_scaling_factor", Some(1.0)),
    ("first_k_dense_replace", Some(0.0)),
    ("mlp_bias", Some(0.0)),
    ("num_shared_experts", Some(0.0)),
    ("moe_layer_freq", Some(1.0)),
    ("decoder_sparse_step", Some(1.0)),
    ("norm_topk_prob", Some(1.0)),
    ("use_grouped_topk", Some(0.0)),
    ("num_expert_group", Some(1.0)),
    ("use_expert_bias", Some(0.0)),
    ("swiglu_limit", None),
];

/// Keys of an architecture.
pub(super) struct Names {
    /// Experts.
    pub count: &'static str,
    /// Width of each.
    pub width: &'static str,
    /// Values of `scoring_func` and `topk_method`, where a configuration has them.
    pub scoring: [&'static str; 2],
    /// Keys of [`RELATIVES`] that this architecture reads itself.
    pub own: &'static [&'static str],
}

/// Experts chosen by probabilities, which are their weights.
pub(super) fn read(keys: &Keys<'_>, model: &Blueprint, names: &Names) -> Result<ExpertsSpec> {
    let mut others = RELATIVES.iter().filter(|(key, _)| !names.own.contains(key));
    others.try_for_each(|&(key, neutral)| keys.refuse_unless(key, neutral))?;
    keys.choice("scoring_func", &names.scoring[..1])?;
    keys.choice("topk_method", &names.scoring[1..])?;
    let count = keys.size(names.count, Route::MAX_EXPERTS as u64)?;
    let slots = keys.size("num_experts_per_tok", 1 << 20)?;
    if slots > count {
        let expected = format!("a whole number from 1 to {}, which is {count}", names.count);
        return Err(keys.bad("num_experts_per_tok", expected));
    }
    let width = keys.size(names.width, MAX_DIMENSION)?;
    for (key, size) in [(names.width, width), ("hidden_size", model.hidden)] {
        if !size.is_multiple_of(Experts::FEATURES) {
            let next = size.next_multiple_of(Experts::FEATURES);
            return Err(keys.bad(key, format!("a multiple of {}, such as {next}, beside experts", Experts::FEATURES)));
        }
    }
    Ok(ExpertsSpec {
        count,
        slots,
        width,
        scoring: ScoringSpec::Softmax,
        renormalize: true,
        factor: 1.0,
        router: "mlp.gate",
        stacks: SWITCH_MLP,
    })
}
