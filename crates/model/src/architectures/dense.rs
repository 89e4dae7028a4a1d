//! Keys that decoders of attention and a gated feed-forward network, each behind a norm, have in common.

use super::rope_keys;
use crate::blueprint::{AttentionSpec, Blueprint, LayerSpec, MlpPath, MlpSpec, Multipliers, Norms};
use mlx_serving_checkpoint::{Keys, Result};
use mlx_serving_device::ops::Activation;

/// Key that says whether the head's weights are the embedding's.
pub(crate) const TIED: &str = "tie_word_embeddings";
/// Module that holds all but the head where nothing else is said.
pub(crate) const ROOT: &str = "model";
/// No dimension is larger than this: products of three stay within `u64` and no claim makes us allocate.
pub(super) const MAX_DIMENSION: u64 = 1 << 20;
const MAX_LAYERS: u64 = 1024;
const MAX_HEADS: u64 = 4096;
const SLIDING: &str = "sliding_attention";
/// Key of the share of a head that rotates.
pub(super) const PARTIAL: &str = "partial_rotary_factor";

/// Values that an architecture takes for absent keys, each as in mlx-lm.
pub(super) struct Defaults {
    /// `num_key_value_heads` may be absent: every query head has its own then.
    pub own_kv_heads: bool,
    /// `head_dim` may be absent: it is hidden width / heads then.
    pub derived_head_dim: bool,
    /// `max_position_embeddings`.
    pub positions: usize,
    /// `rope_theta`; `None` must be given.
    pub theta: Option<f64>,
    /// `rope_local_base_freq`, the base of layers with a window, whose rotation has no scaling; `None`: they rotate as the others do.
    pub local_theta: Option<f64>,
    /// `rms_norm_eps`; `None` must be given.
    pub eps: Option<f64>,
    /// Counts and widths, by their keys; others must be given.
    pub sizes: &'static [(&'static str, usize)],
    /// Activation of the gate.
    pub activation: Activation,
    /// Share of a head that rotates, where no key says; `None`: all of it, and a key that says otherwise is refused.
    pub share: Option<f64>,
    /// Windows of so many layers.
    pub windows: fn(&Keys<'_>, usize) -> Result<Vec<Option<usize>>>,
    /// Keys of [`RELATIVES`] and of rotary embedding that this architecture has and its relatives do not.
    pub own: &'static [&'static str],
}

impl Defaults {
    /// A count or width that need not be given.
    fn size(&self, key: &str) -> Option<usize> {
        self.sizes.iter().find(|(name, _)| *name == key).map(|(_, size)| *size)
    }
}

/// A decoder whose layers are alike but for their windows, and the rotary embeddings that go with them: over whole heads, no biases, no
/// norms but in front of each part.
pub(super) fn read(keys: &Keys<'_>, defaults: &Defaults) -> Result<Blueprint> {
    // Nothing would be computed of these.
    let mut others = RELATIVES
        .iter()
        .filter(|(key, _)| !defaults.own.contains(key) && (*key != PARTIAL || defaults.share.is_none()));
    others.try_for_each(|&(key, neutral)| keys.refuse_unless(key, neutral))?;
    let hidden = keys.size("hidden_size", MAX_DIMENSION)?;
    let layers = keys.size("num_hidden_layers", MAX_LAYERS)?;
    let size = |key, max| match keys.optional_size(key, max)?.or(defaults.size(key)) {
        Some(size) => Ok(size),
        None => keys.size(key, max),
    };
    let heads = size("num_attention_heads", MAX_HEADS)?;
    let kv_heads = match keys.has("num_key_value_heads") {
        false if defaults.own_kv_heads => heads,
        _ => size("num_key_value_heads", MAX_HEADS)?,
    };
    if !heads.is_multiple_of(kv_heads) {
        return Err(keys.bad("num_key_value_heads", format!("a divisor of num_attention_heads, which is {heads}")));
    }
    let head_dim = match keys.has("head_dim") {
        false if defaults.derived_head_dim => {
            if !hidden.is_multiple_of(heads) {
                let expected = format!("a divisor of hidden_size, which is {hidden}");
                return Err(keys.bad("num_attention_heads", expected));
            }
            hidden / heads
        }
        _ => size("head_dim", 4096)?,
    };
    if !head_dim.is_multiple_of(2) || head_dim > 4096 {
        let expected = "an even number up to 4096: rotary embedding takes pairs";
        return Err(keys.refusal("head_dim", head_dim, expected));
    }
    let name = match defaults.activation {
        Activation::Silu => "silu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
    };
    for key in ["hidden_act", "hidden_activation"] {
        if keys.text(key)?.is_some_and(|activation| activation != name) {
            return Err(keys.bad(key, format!("{name:?}, the only activation of this architecture")));
        }
    }
    let max_positions = keys.optional_size("max_position_embeddings", 1 << 28)?.unwrap_or(defaults.positions);
    let windows = (defaults.windows)(keys, layers)?;
    let ropes = rope_keys::read(keys, head_dim, defaults, max_positions, &windows)?;
    let norms = |path| Norms { before: Some(path), after: None };
    let mlp = MlpSpec {
        norms: norms("post_attention_layernorm"),
        width: keys.size("intermediate_size", MAX_DIMENSION)?,
        activation: defaults.activation,
        path: MlpPath::Own,
        bias: false,
        fused: false,
    };
    let layer = |window: Option<usize>| {
        let mixer = AttentionSpec {
            norms: norms("input_layernorm"),
            heads,
            kv_heads,
            head_dim,
            window,
            // Where there are two, the second is that of windows.
            rope: Some(if window.is_some() { ropes.len() - 1 } else { 0 }),
            scale: 1.0 / (head_dim as f32).sqrt(),
            qk_norms: None,
            fused: false,
            qkv_bias: false,
            o_bias: false,
        };
        LayerSpec { mixer, mlp: mlp.clone(), experts: None }
    };
    let layers = windows.into_iter().map(layer).collect();
    Ok(Blueprint {
        vocab: size("vocab_size", 1 << 24)?,
        hidden,
        max_positions,
        norm_eps: keys.number("rms_norm_eps", defaults.eps, 1e-12..=1e-2)? as f32,
        norm_offset: 0.0,
        multipliers: Multipliers::NONE,
        layers,
        ropes,
        root: ROOT,
        // Said by other keys than these, where the model is a part of another.
        head: None,
    })
}

/// Refuses biases of attention in an architecture that has none.
pub(super) fn no_attention_bias(keys: &Keys<'_>) -> Result<()> {
    match keys.flag("attention_bias", false)? {
        false => Ok(()),
        true => Err(keys.bad("attention_bias", "false: biases of this architecture are not implemented")),
    }
}

/// The window of every layer, unless `layer_types` names those that have it.
pub(super) fn windows_of_all(keys: &Keys<'_>, layers: usize) -> Result<Vec<Option<usize>>> {
    match keys.has("layer_types") {
        true => typed_windows(keys, layers),
        false => Ok(vec![keys.optional_size("sliding_window", 1 << 28)?; layers]),
    }
}

/// Windows of the layers that `layer_types` names sliding.
pub(super) fn typed_windows(keys: &Keys<'_>, layers: usize) -> Result<Vec<Option<usize>>> {
    let slides = sliding(keys, layers)?.unwrap_or_else(|| vec![false; layers]);
    // A window that reaches no layer is not looked at.
    if !slides.contains(&true) {
        return Ok(vec![None; layers]);
    }
    let Some(window) = keys.optional_size("sliding_window", 1 << 28)? else {
        return Err(keys.bad("sliding_window", "a whole number: layer_types has sliding_attention"));
    };
    Ok(slides.into_iter().map(|slides| slides.then_some(window)).collect())
}

/// True for each layer that `layer_types` names sliding; `None` without that key.
pub(super) fn sliding(keys: &Keys<'_>, layers: usize) -> Result<Option<Vec<bool>>> {
    let types = keys.choices("layer_types", layers, &["full_attention", SLIDING])?;
    Ok(types.map(|types| types.into_iter().map(|kind| kind == SLIDING).collect()))
}

/// Keys of these architectures' relatives, which change what a model computes in ways that are not implemented, each with the
/// number that asks for nothing (true and false are 1 and 0). `None`: the key must not be there.
const RELATIVES: [(&str, Option<f64>); 21] = [
    (PARTIAL, Some(1.0)),
    (rope_keys::LOCAL_THETA, None),
    ("rope_interleaved", Some(0.0)),
    ("is_causal", Some(1.0)),
    ("use_bidirectional_attention", Some(0.0)),
    ("attention_multiplier", None),
    ("query_pre_attn_scalar", None),
    ("attn_logit_softcapping", Some(0.0)),
    ("final_logit_softcapping", Some(0.0)),
    ("embedding_multiplier", Some(1.0)),
    ("residual_multiplier", Some(1.0)),
    ("logits_scaling", Some(1.0)),
    ("logit_scale", Some(1.0)),
    ("scale_emb", Some(1.0)),
    ("scale_depth", None),
    ("dim_model_base", None),
    ("clip_qkv", Some(0.0)),
    ("use_qk_norm", Some(0.0)),
    ("num_experts", Some(0.0)),
    ("num_local_experts", Some(0.0)),
    ("text_config", None),
];
