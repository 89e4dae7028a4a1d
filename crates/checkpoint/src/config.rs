use crate::keys::Keys;
use crate::quantization::QuantizationPlan;
use crate::{CheckpointError, json};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// `config.json`: what every model's says alike, and keys for its architecture to read.
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
        Ok(Self {
            eos_token_ids: Keys::new(&map, path).token_ids("eos_token_id")?.unwrap_or_default(),
            quantization: QuantizationPlan::from_config(&map, path)?,
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
