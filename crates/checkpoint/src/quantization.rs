use crate::CheckpointError;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// MLX's affine quantization of one module: w = s·q + b for each group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantization {
    /// Values that share a scale and a bias: 32, 64 or 128.
    pub group_size: u16,
    /// Bits of one q: 2, 3, 4, 5, 6 or 8.
    pub bits: u8,
}

/// The key `quantization` of `config.json`: a default and overrides for single modules.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizationPlan {
    default: Quantization,
    /// Module path → its own parameters, or `None` where it is not quantized.
    overrides: BTreeMap<String, Option<Quantization>>,
}

impl QuantizationPlan {
    pub(crate) fn from_config(config: &Map<String, Value>, path: &Path) -> Result<Option<Self>, CheckpointError> {
        let found = ["quantization", "quantization_config"].map(|key| (key, config.get(key)));
        let Some((key, Some(value))) = found.into_iter().find(|(_, value)| value.is_some_and(|v| !v.is_null())) else {
            return Ok(None);
        };
        let Some(map) = value.as_object() else {
            return Err(CheckpointError::config(path, key, value, "an object with group_size and bits"));
        };
        if let Some(method) = map.get("quant_method").and_then(Value::as_str) {
            let expected = "MLX's own quantization: convert the model with mlx_lm.convert";
            return Err(CheckpointError::config(path, &format!("{key}.quant_method"), method, expected));
        }
        let default = parameters(map, key, path)?;
        let mut overrides = BTreeMap::new();
        for (name, value) in map {
            let at = format!("{key}.{name}");
            match value {
                Value::Object(own) => {
                    overrides.insert(name.clone(), Some(parameters(own, &at, path)?));
                }
                Value::Bool(false) => {
                    overrides.insert(name.clone(), None);
                }
                Value::Bool(true) => {
                    overrides.insert(name.clone(), Some(default));
                }
                _ if matches!(name.as_str(), "group_size" | "bits" | "mode") => {}
                other => {
                    let expected = "group_size, bits, mode, or a module's name with an object or false";
                    return Err(CheckpointError::config(path, &at, other, expected));
                }
            }
        }
        Ok(Some(Self { default, overrides }))
    }

    /// The parameters of a module; `None` if it is excluded by name.
    pub fn of(&self, module: &str) -> Option<Quantization> {
        self.overrides.get(module).copied().unwrap_or(Some(self.default))
    }
}

fn parameters(map: &Map<String, Value>, key: &str, path: &Path) -> Result<Quantization, CheckpointError> {
    match map.get("mode").filter(|v| !v.is_null()) {
        None => {}
        Some(Value::String(mode)) if mode == "affine" => {}
        Some(mode) => {
            let expected = "\"affine\", the only mode known here: convert the model with --q-mode affine";
            return Err(CheckpointError::config(path, &format!("{key}.mode"), mode, expected));
        }
    }
    let number = |name: &str, known: &[u64]| {
        let value = map.get(name);
        match value.and_then(Value::as_u64).filter(|n| known.contains(n)) {
            Some(n) => Ok(n),
            None => {
                let found = value.map_or("missing".to_owned(), Value::to_string);
                Err(CheckpointError::config(path, &format!("{key}.{name}"), found, format!("one of {known:?}")))
            }
        }
    };
    Ok(Quantization {
        group_size: number("group_size", &[32, 64, 128])? as u16,
        bits: number("bits", &[2, 3, 4, 5, 6, 8])? as u8,
    })
}
