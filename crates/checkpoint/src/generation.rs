use crate::config::token_ids;
use crate::{CheckpointError, json};
use serde_json::{Map, Value};
use std::path::Path;

/// `generation_config.json`: how its makers want a model to be sampled. All `None` if there is no file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Tokens that end an answer; these win over `config.json`'s.
    pub eos_token_ids: Option<Vec<u32>>,
    /// False means greedy whatever the temperature.
    pub do_sample: Option<bool>,
    /// Temperature.
    pub temperature: Option<f32>,
    /// Top-p.
    pub top_p: Option<f32>,
    /// Top-k.
    pub top_k: Option<u32>,
    /// Min-p.
    pub min_p: Option<f32>,
    /// Repetition penalty.
    pub repetition_penalty: Option<f32>,
}

impl GenerationDefaults {
    /// Reads the file if it is there.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let Some(map) = json::read_optional::<Map<String, Value>>(path)? else { return Ok(Self::default()) };
        let number = |key: &str| match map.get(key).filter(|v| !v.is_null()) {
            None => Ok(None),
            Some(value) => match value.as_f64().map(|n| n as f32).filter(|n| n.is_finite() && *n >= 0.0) {
                Some(n) => Ok(Some(n)),
                None => Err(CheckpointError::config(path, key, value, "a number of at least 0")),
            },
        };
        Ok(Self {
            eos_token_ids: token_ids(map.get("eos_token_id").filter(|v| !v.is_null())),
            do_sample: map.get("do_sample").and_then(Value::as_bool),
            temperature: number("temperature")?,
            top_p: number("top_p")?.filter(|p| *p > 0.0 && *p <= 1.0),
            top_k: number("top_k")?.map(|k| k as u32),
            min_p: number("min_p")?,
            repetition_penalty: number("repetition_penalty")?.filter(|p| *p > 0.0),
        })
    }
}
