use crate::keys::Keys;
use crate::{CheckpointError, json};
use serde_json::Value;
use std::path::Path;

/// `generation_config.json`: sampling as the model's makers want it. All `None` if there is no file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Tokens that end an answer, perhaps beyond the vocabulary; these win over `config.json`'s.
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
    /// Reads the file if it is there. One that holds no JSON object counts as absent, as in mlx-lm, with a warning.
    ///
    /// # Errors
    /// The file cannot be read; a value is out of its range.
    pub fn read(path: &Path, warnings: &mut Vec<String>) -> Result<Self, CheckpointError> {
        let map = match json::read_optional(path) {
            Ok(None) => return Ok(Self::default()),
            Ok(Some(Value::Object(map))) => map,
            other => {
                let fault = match other {
                    Ok(_) => "it holds no object".to_owned(),
                    Err(CheckpointError::Json { message, .. }) => message,
                    Err(error) => return Err(error),
                };
                let path = path.display();
                warnings.push(format!("{path} is not used, so sampling is greedy unless a request says more: {fault}"));
                return Ok(Self::default());
            }
        };
        let keys = Keys::new(&map, path);
        let number = |key, range| Ok(keys.optional_number(key, range)?.map(|n| n as f32));
        // Some write −1 for all tokens.
        let top_k = number("top_k", -1.0..=f64::from(u32::MAX))?;
        if top_k.is_some_and(|k| k.fract() != 0.0) {
            return Err(keys.bad("top_k", "a whole number of at least 0, or -1"));
        }
        let penalty = number("repetition_penalty", 0.0..=10.0)?;
        if penalty.is_some_and(|p| p > 0.0 && p < 0.01) {
            return Err(keys.bad("repetition_penalty", "0, which is taken as 1, or a number from 0.01 to 10"));
        }
        Ok(Self {
            eos_token_ids: keys.token_ids("eos_token_id")?,
            do_sample: keys.optional_flag("do_sample")?,
            temperature: number("temperature", 0.0..=2.0)?,
            // 0 leaves the likeliest token alone, as the smallest number above it does.
            top_p: number("top_p", 0.0..=1.0)?.map(|p| p.max(f32::MIN_POSITIVE)),
            top_k: top_k.map(|k| k as u32),
            min_p: number("min_p", 0.0..=1.0)?,
            repetition_penalty: penalty.map(|p| if p == 0.0 { 1.0 } else { p }),
        })
    }
}
