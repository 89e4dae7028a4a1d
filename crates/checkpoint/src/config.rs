use crate::keys::Keys;
use crate::quantization::QuantizationPlan;
use crate::{CheckpointError, json};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// `config.json`: what every model's says alike, and keys for its architecture to read. In a model of more than text, what it does not say
/// itself is read from its `text_config`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Tokens that end an answer, as far as this file names them, perhaps beyond the vocabulary.
    pub eos_token_ids: Vec<u32>,
    /// Quantization of the modules, as far as this file says.
    pub quantization: QuantizationPlan,
    map: Map<String, Value>,
    path: PathBuf,
}

impl Config {
    /// Reads and validates a file.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        Self::from_value(json::read(path)?, path)
    }

    /// Validates bytes; `path` is for the errors.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, CheckpointError> {
        Self::from_value(json::parse(bytes, path)?, path)
    }

    pub(crate) fn from_value(value: Value, path: &Path) -> Result<Self, CheckpointError> {
        let Value::Object(map) = value else {
            return Err(CheckpointError::Json { path: path.to_owned(), message: "not a JSON object".into() });
        };
        let keys = Keys::new(&map, path);
        let text = keys.object("text_config")?;
        let eos_token_ids = match (keys.token_ids("eos_token_id")?, &text) {
            (None, Some(text)) => text.token_ids("eos_token_id")?,
            (ids, _) => ids,
        };
        let says_quantization = |keys: &Keys<'_>| keys.has("quantization") || keys.has("quantization_config");
        let quantized = text.as_ref().filter(|text| !says_quantization(&keys) && says_quantization(text));
        Ok(Self {
            eos_token_ids: eos_token_ids.unwrap_or_default(),
            quantization: QuantizationPlan::from_config(quantized.map_or(&map, Keys::map), path)?,
            map,
            path: path.to_owned(),
        })
    }

    /// Keys of the file, for typed access.
    pub fn keys(&self) -> Keys<'_> {
        Keys::new(&self.map, &self.path)
    }

    pub(crate) fn json(&self) -> String {
        Value::Object(self.map.clone()).to_string()
    }
}
