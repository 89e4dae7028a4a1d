use crate::keys::Keys;
use crate::quantization::QuantizationPlan;
use crate::{CheckpointError, Rope, RopeScaling, json};
use serde_json::Value;
use std::path::Path;

/// `config.json`, validated. Defaults are mlx-lm's for each `model_type`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Architecture: one of [`MODEL_TYPES`].
    pub model_type: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head, even; need not be hidden size / heads.
    pub head_dim: usize,
    /// ε of the RMS norms.
    pub rms_norm_eps: f32,
    /// Tokens.
    pub vocab_size: usize,
    /// Longest context the model was made for.
    pub max_position_embeddings: usize,
    /// The head shares the embedding's weights.
    pub tie_word_embeddings: bool,
    /// Biases on q, k, v and o (llama, mistral).
    pub attention_bias: bool,
    /// Biases on gate, up and down (llama, mistral).
    pub mlp_bias: bool,
    /// Rotary embedding.
    pub rope: Rope,
    /// Window of each layer; `None` sees everything.
    pub windows: Vec<Option<usize>>,
    /// Tokens that end an answer, as far as this file names them, perhaps beyond the vocabulary.
    pub eos_token_ids: Vec<u32>,
    /// Quantization of the modules, if any is quantized.
    pub quantization: Option<QuantizationPlan>,
}

/// Architectures known.
pub const MODEL_TYPES: [&str; 4] = ["qwen2", "qwen3", "llama", "mistral"];

/// No dimension is larger than this: products of three stay within `u64` and no claim makes us allocate.
const MAX_DIMENSION: u64 = 1 << 20;
const MAX_LAYERS: u64 = 1024;

/// Keys of these architectures' relatives, which change what a model computes in ways that are not implemented, each with the
/// number that asks for nothing (true and false are 1 and 0). `None`: the key must not be there.
const RELATIVES: [(&str, Option<f64>); 21] = [
    ("partial_rotary_factor", Some(1.0)),
    ("rope_local_base_freq", None),
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

impl Config {
    /// Reads and validates a file.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        Self::from_value(&json::read::<Value>(path)?, path)
    }

    /// Validates bytes; `path` is for the errors.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, CheckpointError> {
        Self::from_value(&json::parse::<Value>(bytes, path)?, path)
    }

    fn from_value(value: &Value, path: &Path) -> Result<Self, CheckpointError> {
        let Some(map) = value.as_object() else {
            return Err(CheckpointError::Json { path: path.to_owned(), message: "not a JSON object".into() });
        };
        let keys = Keys::new(map, path);
        let model_type = match keys.get("model_type").and_then(Value::as_str) {
            Some(name) if MODEL_TYPES.contains(&name) => name.to_owned(),
            _ => {
                return Err(
                    keys.bad("model_type", format!("one of the architectures known here: {}", MODEL_TYPES.join(", ")))
                );
            }
        };
        // Nothing would be computed of these.
        RELATIVES.iter().try_for_each(|&(key, neutral)| keys.refuse_unless(key, neutral))?;
        let llama = matches!(model_type.as_str(), "llama" | "mistral");
        let hidden_size = keys.size("hidden_size", MAX_DIMENSION)?;
        let num_hidden_layers = keys.size("num_hidden_layers", MAX_LAYERS)?;
        let heads = keys.size("num_attention_heads", 4096)?;
        let kv_heads = match keys.get("num_key_value_heads") {
            None if llama => heads,
            _ => keys.size("num_key_value_heads", 4096)?,
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(keys.bad("num_key_value_heads", format!("a divisor of num_attention_heads, which is {heads}")));
        }
        let head_dim = match keys.get("head_dim") {
            None if model_type != "qwen3" => {
                if !hidden_size.is_multiple_of(heads) {
                    let expected = format!("a divisor of hidden_size, which is {hidden_size}");
                    return Err(keys.bad("num_attention_heads", expected));
                }
                hidden_size / heads
            }
            _ => keys.size("head_dim", 4096)?,
        };
        if !head_dim.is_multiple_of(2) || head_dim > 4096 {
            return Err(CheckpointError::config(
                path,
                "head_dim",
                head_dim,
                "an even number up to 4096: rotary embedding takes pairs",
            ));
        }
        match keys.get("hidden_act") {
            None => {}
            Some(act) if act == "silu" => {}
            Some(_) => return Err(keys.bad("hidden_act", "\"silu\", the only activation of these architectures")),
        }
        let max_position_embeddings =
            keys.optional_size("max_position_embeddings", 1 << 28)?.unwrap_or(if llama { 4096 } else { 32_768 });
        if model_type == "qwen3" && keys.flag("attention_bias", false)? {
            return Err(keys.bad("attention_bias", "false: biases of this architecture are not implemented"));
        }
        let windows = windows(&keys, &model_type, num_hidden_layers)?;
        let rope = Rope::read(&keys, &model_type, &windows)?;
        if matches!(rope.scaling, RopeScaling::Dynamic { .. }) && head_dim == 2 {
            return Err(keys.bad("head_dim", "a number above 2: a single pair has no dynamic scaling"));
        }
        Ok(Self {
            hidden_size,
            num_hidden_layers,
            intermediate_size: keys.size("intermediate_size", MAX_DIMENSION)?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            rms_norm_eps: keys.number("rms_norm_eps", None, 1e-12..=1e-2)? as f32,
            vocab_size: keys.size("vocab_size", 1 << 24)?,
            max_position_embeddings,
            tie_word_embeddings: keys.flag("tie_word_embeddings", model_type != "mistral")?,
            attention_bias: llama && keys.flag("attention_bias", false)?,
            mlp_bias: llama && keys.flag("mlp_bias", false)?,
            rope,
            windows,
            eos_token_ids: keys.token_ids("eos_token_id")?.unwrap_or_default(),
            quantization: QuantizationPlan::from_config(map, path)?,
            model_type,
        })
    }
}

/// Each layer's window. mistral: all layers, where the key is set; llama: layers whose `layer_types` says so, as in mlx-lm;
/// qwen2 and qwen3: none, as in mlx-lm, which refuses nothing there, so a window that is switched on is refused here.
fn windows(keys: &Keys<'_>, model_type: &str, layers: usize) -> Result<Vec<Option<usize>>, CheckpointError> {
    if model_type.starts_with("qwen") {
        if keys.flag("use_sliding_window", false)? {
            return Err(keys.bad("use_sliding_window", "false: windows of this architecture are not implemented"));
        }
        return Ok(vec![None; layers]);
    }
    let window = keys.optional_size("sliding_window", 1 << 28)?;
    let Some(types) = keys.get("layer_types") else {
        let all = window.filter(|_| model_type == "mistral");
        return Ok(vec![all; layers]);
    };
    let types = types.as_array().filter(|t| t.len() == layers);
    let Some(types) = types else {
        return Err(keys.bad("layer_types", format!("a list of {layers} names, one a layer")));
    };
    types
        .iter()
        .map(|t| match t.as_str() {
            Some("full_attention") => Ok(None),
            Some("sliding_attention") => match window {
                Some(window) => Ok(Some(window)),
                None => Err(keys.bad("sliding_window", "a whole number: layer_types has sliding_attention")),
            },
            _ => Err(keys.bad("layer_types", "full_attention or sliding_attention for each layer")),
        })
        .collect()
}
