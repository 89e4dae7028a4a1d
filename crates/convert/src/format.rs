use serde_json::{Value, json};
use std::fmt;
use std::str::FromStr;

/// Format of a module's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As they are in the source.
    Dense,
    /// MLX's affine quantization.
    Affine {
        /// Bits of a weight: 2, 3, 4, 5, 6 or 8.
        bits: u8,
        /// Weights that share a scale and a bias: 32, 64 or 128.
        group: u16,
    },
    /// E2M1 in groups of 32 under a power of two (OCP MX).
    Mxfp4,
    /// E2M1 in groups of 16 under an E4M3 scale.
    Nvfp4,
    /// E4M3 in groups of 32 under a power of two (OCP MX).
    Mxfp8,
}

/// Group of the affine formats where none is named.
const GROUP: u16 = 64;

impl Format {
    /// Bits of a weight's code and weights of a group; `None` for plain values.
    pub fn codes(self) -> Option<(usize, usize)> {
        match self {
            Format::Dense => None,
            Format::Affine { bits, group } => Some((bits.into(), group.into())),
            Format::Mxfp4 => Some((4, 32)),
            Format::Nvfp4 => Some((4, 16)),
            Format::Mxfp8 => Some((8, 32)),
        }
    }

    /// Its entry under `quantization` in `config.json`.
    pub(crate) fn entry(self) -> Value {
        let mode = match self {
            Format::Dense => return Value::Bool(false),
            Format::Affine { .. } => "affine",
            Format::Mxfp4 => "mxfp4",
            Format::Nvfp4 => "nvfp4",
            Format::Mxfp8 => "mxfp8",
        };
        let (bits, group) = self.codes().unwrap_or_default();
        json!({ "group_size": group, "bits": bits, "mode": mode })
    }
}

impl FromStr for Format {
    type Err = String;

    /// `dense`, `mxfp4`, `nvfp4`, `mxfp8`, `BITS` or `BITS:GROUP`.
    fn from_str(text: &str) -> Result<Self, String> {
        let known = || "known are 2, 3, 4, 5, 6 and 8 bits, each also as BITS:GROUP with a group of 32, 64 or 128, mxfp4, nvfp4, mxfp8 and dense";
        Ok(match text {
            "dense" => Format::Dense,
            "mxfp4" => Format::Mxfp4,
            "nvfp4" => Format::Nvfp4,
            "mxfp8" => Format::Mxfp8,
            affine => {
                let (bits, group) = match affine.split_once(':') {
                    Some((bits, group)) => (bits.parse().ok(), group.parse().ok()),
                    None => (affine.parse().ok(), Some(GROUP)),
                };
                match (bits, group) {
                    (Some(bits @ (2..=6 | 8)), Some(group @ (32 | 64 | 128))) => Format::Affine { bits, group },
                    _ => return Err(known().to_owned()),
                }
            }
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Dense => f.write_str("dense"),
            Format::Affine { bits, group } => write!(f, "{bits} bits in groups of {group}"),
            Format::Mxfp4 => f.write_str("mxfp4"),
            Format::Nvfp4 => f.write_str("nvfp4"),
            Format::Mxfp8 => f.write_str("mxfp8"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_and_others_are_refused_with_what_is_known() {
        let affine = |bits, group| Ok(Format::Affine { bits, group });
        for (text, expected) in [
            ("4", affine(4, 64)),
            ("8:32", affine(8, 32)),
            ("mxfp4", Ok(Format::Mxfp4)),
            ("nvfp4", Ok(Format::Nvfp4)),
            ("mxfp8", Ok(Format::Mxfp8)),
            ("dense", Ok(Format::Dense)),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in ["", "7", "4:16", "4:", ":64", "-4", "mxfp6", "4:64:1", "999999999999"] {
            assert!(text.parse::<Format>().unwrap_err().contains("known are"), "{text}");
        }
    }
}
