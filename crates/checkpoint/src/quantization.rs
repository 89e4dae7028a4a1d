use crate::CheckpointError;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Sizes of a module's quantization, which is affine where nothing else is said: w = s·q + b for each group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantization {
    /// Values that share a scale and a bias: 32, 64 or 128; 16 of nvfp4.
    pub group_size: u16,
    /// Bits of a value: 2, 3, 4, 5, 6 or 8.
    pub bits: u8,
}

/// Modes of quantization beside affine: small floats, w = s·v, with scales of one byte and no biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmallFloat {
    /// 4 bits in groups of 32.
    Mxfp4,
    /// 4 bits in groups of 16.
    Nvfp4,
    /// 8 bits in groups of 32.
    Mxfp8,
}

impl SmallFloat {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Mxfp4, Self::Nvfp4, Self::Mxfp8];

    /// Name of the mode.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mxfp4 => "mxfp4",
            Self::Nvfp4 => "nvfp4",
            Self::Mxfp8 => "mxfp8",
        }
    }

    /// Bits and group size, of which each mode has one.
    pub fn quantization(self) -> Quantization {
        match self {
            Self::Mxfp4 => Quantization { group_size: 32, bits: 4 },
            Self::Nvfp4 => Quantization { group_size: 16, bits: 4 },
            Self::Mxfp8 => Quantization { group_size: 32, bits: 8 },
        }
    }
}

/// A mode as a plan names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Affine,
    Small(SmallFloat),
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
    pub(crate) mode: Option<Mode>,
}

const GROUP_SIZES: [u16; 3] = [32, 64, 128];
const BITS: [u8; 6] = [2, 3, 4, 5, 6, 8];
/// Settings of the models that other programs quantize in a mode of MLX's.
const METHODS: [(&str, SmallFloat); 2] = [("mxfp4", SmallFloat::Mxfp4), ("mxfp8", SmallFloat::Mxfp8)];

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
        let map = match (method, key) {
            (Some(method), "quantization_config") => match METHODS.iter().find(|(name, _)| *name == method) {
                // Its other keys are in its maker's words.
                Some((_, mode)) => Map::from_iter([("mode".to_owned(), Value::from(mode.name()))]),
                None => {
                    let expected = "MLX's own, mxfp4 or mxfp8: convert the original model with mlx_lm.convert";
                    return Err(CheckpointError::config(path, &format!("{key}.quant_method"), method, expected));
                }
            },
            _ => map,
        };
        let plan = Self { map, key, path: path.to_owned() };
        plan.parameters(&plan.map, plan.key)?;
        if config.get("quantize_activations").is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false))) {
            let expected = "false, or no such key: activations are not rounded here";
            return Err(CheckpointError::config(
                path,
                "quantize_activations",
                &config["quantize_activations"],
                expected,
            ));
        }
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
            Some(Value::Object(own)) => self.parameters(own, &at),
            Some(other) => {
                let expected = "no such key, or an object with group_size and bits: the module has scales";
                Err(CheckpointError::config(&self.path, &at, other, expected))
            }
        }
    }

    fn parameters(&self, map: &Map<String, Value>, key: &str) -> Result<Named, CheckpointError> {
        let refuse = |name: &str, found: &Value, expected: String| {
            CheckpointError::config(&self.path, &format!("{key}.{name}"), found, expected)
        };
        let mode = match map.get("mode").filter(|value| !value.is_null()) {
            None => None,
            Some(Value::String(name)) if name == "affine" => Some(Mode::Affine),
            Some(other) => match SmallFloat::ALL.into_iter().find(|mode| other == mode.name()) {
                Some(mode) => Some(Mode::Small(mode)),
                None => return Err(refuse("mode", other, "affine, mxfp4, nvfp4 or mxfp8".into())),
            },
        };
        let number = |name: &str, known: &[u64], own: Option<u64>| match map.get(name).filter(|value| !value.is_null())
        {
            None => Ok(None),
            Some(value) => match (value.as_u64().filter(|n| known.contains(n)), own, mode) {
                (Some(n), None, _) => Ok(Some(n)),
                (_, Some(own), _) if value.as_u64() == Some(own) => Ok(Some(own)),
                (_, Some(own), Some(Mode::Small(mode))) => {
                    Err(refuse(name, value, format!("{own}, which is all that {} has", mode.name())))
                }
                _ => Err(refuse(name, value, format!("one of {known:?}"))),
            },
        };
        let own = match mode {
            Some(Mode::Small(mode)) => Some(mode.quantization()),
            _ => None,
        };
        let group_size = number("group_size", &GROUP_SIZES.map(u64::from), own.map(|own| own.group_size.into()))?;
        let bits = number("bits", &BITS.map(u64::from), own.map(|own| own.bits.into()))?;
        Ok(Named { group_size: group_size.map(|n| n as u16), bits: bits.map(|n| n as u8), mode })
    }
}

impl Named {
    /// The mode of a module with scales of one byte: the named one, or that of the widths of a row's packed weights and scales, which
    /// stand for `cols` values.
    pub(crate) fn small_or_by_shape(self, cols: usize, packed: usize, scales: usize) -> Result<SmallFloat, String> {
        let fits = |mode: &SmallFloat| {
            let Quantization { group_size, bits } = mode.quantization();
            let shapes = packed == cols * usize::from(bits) / 32 && scales == cols / usize::from(group_size);
            shapes && self.bits.is_none_or(|own| own == bits) && self.group_size.is_none_or(|own| own == group_size)
        };
        match self.mode {
            Some(Mode::Small(mode)) => Ok(mode),
            Some(Mode::Affine) => Err("scales of F32, F16 or BF16, as the mode affine has them".into()),
            None => SmallFloat::ALL.into_iter().find(fits).ok_or_else(|| {
                format!(
                    "{cols} values of a row as mxfp4 (4 bits, groups of 32), nvfp4 (4 bits, 16) or mxfp8 (8 bits, 32)"
                )
            }),
        }
    }

    /// Fills in what is not named of an affine module, by the widths of a row's packed weights and scales, which stand for `cols` values.
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
