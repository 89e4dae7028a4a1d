use crate::quantization::QuantizationPlan;
use crate::{CheckpointError, json};
use serde::Deserialize;
use serde_json::{Map, Value};
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
    /// Tokens that end an answer, as far as this file names them.
    pub eos_token_ids: Vec<u32>,
    /// How modules are quantised, if any is.
    pub quantization: Option<QuantizationPlan>,
}

/// Rotary embedding's parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Neighbouring values form a pair, instead of values half a head apart.
    pub traditional: bool,
    /// How the context is stretched.
    pub scaling: RopeScaling,
}

/// How a model stretches its context.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions divided by the factor.
    Linear {
        /// Factor.
        factor: f64,
    },
    /// The base grows with the sequence.
    Dynamic {
        /// Factor.
        factor: f64,
    },
    /// Long wavelengths stretched, short ones kept.
    Llama3 {
        /// Factor.
        factor: f64,
        /// Wavelengths above context / this are stretched.
        low_freq_factor: f64,
        /// Wavelengths below context / this are kept.
        high_freq_factor: f64,
        /// Context before stretching.
        original: f64,
    },
    /// YaRN.
    Yarn {
        /// Factor.
        factor: f64,
        /// Context before stretching.
        original: f64,
        /// Turns at which the ramp begins.
        beta_fast: f64,
        /// Turns at which it ends.
        beta_slow: f64,
        /// Temperature of attention.
        mscale: f64,
        /// Its divisor.
        mscale_all_dim: f64,
    },
}

/// Architectures known.
pub const MODEL_TYPES: [&str; 4] = ["qwen2", "qwen3", "llama", "mistral"];

/// No dimension is larger than this: products of three stay within `u64` and no claim makes us allocate.
const MAX_DIMENSION: u64 = 1 << 20;
const MAX_LAYERS: u64 = 1024;

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

/// Token ids given as one or as a list; none for `null`.
pub(crate) fn token_ids(value: Option<&Value>) -> Option<Vec<u32>> {
    match OneOrMany::deserialize(value?).ok()? {
        OneOrMany::One(id) => Some(vec![id]),
        OneOrMany::Many(ids) => Some(ids),
    }
}

/// A JSON object with its file's name, for errors.
struct Keys<'a> {
    map: &'a Map<String, Value>,
    prefix: &'static str,
    path: &'a Path,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn bad(&self, key: &str, expected: impl Into<String>) -> CheckpointError {
        let found = self.get(key).map_or("missing".to_owned(), Value::to_string);
        let found: String = found.chars().take(80).collect();
        CheckpointError::config(self.path, &format!("{}{key}", self.prefix), found, expected)
    }

    fn optional_size(&self, key: &str, max: u64) -> Result<Option<usize>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(n) if (1..=max).contains(&n) => Ok(Some(n as usize)),
                _ => Err(self.bad(key, format!("a whole number from 1 to {max}"))),
            },
        }
    }

    fn size(&self, key: &str, max: u64) -> Result<usize, CheckpointError> {
        self.optional_size(key, max)?.ok_or_else(|| self.bad(key, format!("a whole number from 1 to {max}")))
    }

    fn optional_number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(n) if n.is_finite() => Ok(Some(n)),
                _ => Err(self.bad(key, "a finite number")),
            },
        }
    }

    fn positive(&self, key: &str, default: Option<f64>) -> Result<f64, CheckpointError> {
        match self.optional_number(key)?.or(default) {
            Some(n) if n > 0.0 => Ok(n),
            _ => Err(self.bad(key, "a number above 0")),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, CheckpointError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(_) => Err(self.bad(key, "true or false")),
        }
    }

    fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(self.bad(key, "an object")),
        }
    }
}

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
        let keys = Keys { map, prefix: "", path };
        let model_type = match keys.get("model_type").and_then(Value::as_str) {
            Some(name) if MODEL_TYPES.contains(&name) => name.to_owned(),
            _ => {
                return Err(
                    keys.bad("model_type", format!("one of the architectures known here: {}", MODEL_TYPES.join(", ")))
                );
            }
        };
        let llama = matches!(model_type.as_str(), "llama" | "mistral");
        let hidden_size = keys.size("hidden_size", MAX_DIMENSION)?;
        let num_hidden_layers = keys.size("num_hidden_layers", MAX_LAYERS)?;
        let heads = keys.size("num_attention_heads", 4096)?;
        let kv_heads = match keys.optional_size("num_key_value_heads", 4096)? {
            Some(n) => n,
            None if llama => heads,
            None => return Err(keys.bad("num_key_value_heads", "a whole number from 1 to 4096")),
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(keys.bad("num_key_value_heads", format!("a divisor of num_attention_heads, which is {heads}")));
        }
        // qwen2 has no head_dim of its own; mlx-lm ignores the key there.
        let head_dim = match keys.optional_size("head_dim", 4096)?.filter(|_| model_type != "qwen2") {
            Some(n) => n,
            None if model_type == "qwen3" => return Err(keys.bad("head_dim", "a whole number from 1 to 4096")),
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                return Err(
                    keys.bad("num_attention_heads", format!("a divisor of hidden_size, which is {hidden_size}"))
                );
            }
        };
        if !head_dim.is_multiple_of(2) || head_dim > 4096 {
            return Err(CheckpointError::config(
                path,
                "head_dim",
                head_dim,
                "an even number up to 4096: rotary embedding takes pairs",
            ));
        }
        match keys.get("hidden_act").and_then(Value::as_str) {
            None | Some("silu") => {}
            Some(_) => return Err(keys.bad("hidden_act", "\"silu\", the only activation of these architectures")),
        }
        let max_position_embeddings =
            keys.optional_size("max_position_embeddings", 1 << 28)?.unwrap_or(if llama { 4096 } else { 32_768 });
        Ok(Self {
            hidden_size,
            num_hidden_layers,
            intermediate_size: keys.size("intermediate_size", MAX_DIMENSION)?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            rms_norm_eps: keys.positive("rms_norm_eps", None)? as f32,
            vocab_size: keys.size("vocab_size", 1 << 24)?,
            max_position_embeddings,
            tie_word_embeddings: keys.flag("tie_word_embeddings", model_type != "mistral")?,
            attention_bias: llama && keys.flag("attention_bias", false)?,
            mlp_bias: llama && keys.flag("mlp_bias", false)?,
            rope: rope(&keys, &model_type)?,
            windows: windows(&keys, &model_type, num_hidden_layers)?,
            eos_token_ids: token_ids(keys.get("eos_token_id")).unwrap_or_default(),
            quantization: QuantizationPlan::from_config(map, path)?,
            model_type,
        })
    }
}

fn rope(keys: &Keys<'_>, model_type: &str) -> Result<Rope, CheckpointError> {
    let default_theta = match model_type {
        "qwen2" => Some(1e6),
        "qwen3" => None,
        _ => Some(1e4),
    };
    // Newer configurations nest theta and scaling in rope_parameters.
    let nested = keys.object("rope_parameters")?;
    let scaling_map = keys.object("rope_scaling")?.or(nested);
    let nested_theta = match nested {
        Some(map) => Keys { map, prefix: "rope_parameters.", path: keys.path }.optional_number("rope_theta")?,
        None => None,
    };
    let theta = keys.positive("rope_theta", nested_theta.or(default_theta))?;
    if theta <= 1.0 {
        return Err(keys.bad("rope_theta", "a number above 1"));
    }
    let scaling = match scaling_map {
        Some(map) => scaling(&Keys { map, prefix: "rope_scaling.", path: keys.path })?,
        None => RopeScaling::None,
    };
    Ok(Rope { theta, traditional: keys.flag("rope_traditional", false)?, scaling })
}

fn scaling(keys: &Keys<'_>) -> Result<RopeScaling, CheckpointError> {
    let key = if keys.get("type").is_some() { "type" } else { "rope_type" };
    let kind = keys.get(key).map_or(Some("default"), Value::as_str);
    let factor = || keys.positive("factor", None);
    Ok(match kind {
        Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: factor()? },
        Some("dynamic") => RopeScaling::Dynamic { factor: factor()? },
        Some("llama3") => {
            let scaling = RopeScaling::Llama3 {
                factor: factor()?,
                low_freq_factor: keys.positive("low_freq_factor", Some(1.0))?,
                high_freq_factor: keys.positive("high_freq_factor", Some(4.0))?,
                original: keys.positive("original_max_position_embeddings", Some(8192.0))?,
            };
            match scaling {
                RopeScaling::Llama3 { low_freq_factor: low, high_freq_factor: high, .. } if low >= high => {
                    return Err(keys.bad("high_freq_factor", format!("a number above low_freq_factor, which is {low}")));
                }
                scaling => scaling,
            }
        }
        Some("yarn") => RopeScaling::Yarn {
            factor: factor()?,
            original: keys.positive("original_max_position_embeddings", Some(4096.0))?,
            beta_fast: keys.positive("beta_fast", Some(32.0))?,
            beta_slow: keys.positive("beta_slow", Some(1.0))?,
            mscale: keys.optional_number("mscale")?.unwrap_or(1.0),
            mscale_all_dim: keys.optional_number("mscale_all_dim")?.unwrap_or(0.0),
        },
        _ => return Err(keys.bad(key, "default, linear, dynamic, llama3 or yarn")),
    })
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
