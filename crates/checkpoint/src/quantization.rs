use crate::CheckpointError;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// MLX's affine quantization of one module: w = s·q + b for each group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantization {
    /// Values that share a scale and a bias: 32, 64 or 128.
    pub group_size: u16,
    /// Bits of one q: 2, 3, 4, 5, 6 or 8.
    pub bits: u8,
}

/// The key `quantization` of `config.json`. What it says of a module by name holds; of others, and where it says a part, the shapes of the
/// tensors tell, as in mlx-lm. Keys that name no module of the model are not looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizationPlan {
    map: Map<String, Value>,
    /// Name of the key.
    key: &'static str,
    path: PathBuf,
}

/// Parameters that a plan has for a module; `None` where the shapes tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) group_size: Option<u16>,
    pub(crate) bits: Option<u8>,
}

const GROUP_SIZES: [u16; 3] = [32, 64, 128];
const BITS: [u8; 6] = [2, 3, 4, 5, 6, 8];
const AFFINE: &str = "\"affine\", the only mode known here: convert the model with --q-mode affine";

impl QuantizationPlan {
    pub(crate) fn from_config(config: &Map<String, Value>, path: &Path) -> Result<Self, CheckpointError> {
        let found = ["quantization", "quantization_config"].map(|key| (key, config.get(key)));
        let found = found.into_iter().find(|(_, value)| value.is_some_and(|v| !v.is_null()));
        let (key, map) = match found {
            Some((key, Some(Value::Object(map)))) => (key, map.clone()),
            Some((key, Some(other))) => {
                return Err(CheckpointError::config(path, key, other, "an object with group_size and bits"));
            }
            _ => ("quantization", Map::new()),
        };
        // Under `quantization` it is MLX's own, whoever is named as its maker.
        let method = map.get("quant_method").and_then(Value::as_str).filter(|method| *method != "mlx");
        if let (Some(method), "quantization_config") = (method, key) {
            let expected = "MLX's own quantization: convert the model with mlx_lm.convert";
            return Err(CheckpointError::config(path, &format!("{key}.quant_method"), method, expected));
        }
        let plan = Self { map, key, path: path.to_owned() };
        plan.affine(&plan.map, plan.key)?;
        Ok(plan)
    }

    /// True if nothing is said.
    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Parameters that the plan has under a module's name.
    ///
    /// # Errors
    /// It is said not to be quantized, though it has scales, or to be quantized in a way that is not known here.
    pub(crate) fn of(&self, module: &str) -> Result<Named, CheckpointError> {
        let at = format!("{}.{module}", self.key);
        match self.map.get(module) {
            None | Some(Value::Null) => Ok(Named::default()),
            Some(Value::Bool(true)) => self.parameters(&self.map, self.key),
            Some(Value::Object(own)) => {
                self.affine(own, &at)?;
                self.parameters(own, &at)
            }
            Some(other) => {
                let expected = "no such key, or an object with group_size and bits: the module has scales";
                Err(CheckpointError::config(&self.path, &at, other, expected))
            }
        }
    }

    /// The refusal of a module with scales of 8 bits, which other modes have.
    pub(crate) fn other_mode(&self, module: &str) -> CheckpointError {
        let found = format!("mxfp4, nvfp4 or mxfp8 for {module}, whose scales have 8 bits");
        CheckpointError::config(&self.path, &format!("{}.mode", self.key), found, AFFINE)
    }

    fn affine(&self, map: &Map<String, Value>, key: &str) -> Result<(), CheckpointError> {
        match map.get("mode").filter(|v| !v.is_null()) {
            None => Ok(()),
            Some(Value::String(mode)) if mode == "affine" => Ok(()),
            Some(mode) => Err(CheckpointError::config(&self.path, &format!("{key}.mode"), mode, AFFINE)),
        }
    }

    fn parameters(&self, map: &Map<String, Value>, key: &str) -> Result<Named, CheckpointError> {
        let number = |name: &str, known: &[u64]| match map.get(name).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => match value.as_u64().filter(|n| known.contains(n)) {
                Some(n) => Ok(Some(n)),
                None => {
                    let at = format!("{key}.{name}");
                    Err(CheckpointError::config(&self.path, &at, value, format!("one of {known:?}")))
                }
            },
        };
        Ok(Named {
            group_size: number("group_size", &GROUP_SIZES.map(u64::from))?.map(|n| n as u16),
            bits: number("bits", &BITS.map(u64::from))?.map(|n| n as u8),
        })
    }
}

impl Named {
    /// Fills in what is not named, by the widths of a row's packed weights and scales, which stand for `cols` values.
    pub(crate) fn or_by_shape(self, cols: usize, packed: usize, scales: usize) -> Result<Quantization, String> {
        let by_group = |group: &u16| cols.is_multiple_of((*group).into()) && cols / usize::from(*group) == scales;
        let by_bits =
            |bits: &u8| (cols * usize::from(*bits)).is_multiple_of(32) && cols * usize::from(*bits) / 32 == packed;
        let group_size = self.group_size.or_else(|| GROUP_SIZES.into_iter().find(by_group));
        let bits = self.bits.or_else(|| BITS.into_iter().find(by_bits));
        match (group_size, bits) {
            (Some(group_size), Some(bits)) => Ok(Quantization { group_size, bits }),
            (None, _) => Err(format!("{cols} values of a row in groups of 32, 64 or 128")),
            (_, None) => Err(format!("{cols} values of a row with 2, 3, 4, 5, 6 or 8 bits each")),
        }
    }
}
