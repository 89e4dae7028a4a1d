//! Keys of all kernels, and what each is rendered from.

use crate::variant::{Bits, Code, Items, Kv, Queries, Side, Small, Tile, Variant};

const CODES: [Code; 6] = [Code::B2, Code::B3, Code::B4, Code::B5, Code::B6, Code::B8];

impl Variant {
    /// Lists every variant. The crate does not compile if one is missing: the function that finds a key's kernel matches on every key.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self::Copy, Self::RopeAngles, Self::GatherCheck, Self::LinearRows, Self::AttendMerge];
        all.extend([Self::ObserveClear, Self::ObserveMark, Self::SampleAdjust, Self::SampleChoose]);
        all.extend([false, true].map(|adds| Self::Normalize { adds }));
        all.extend([Self::Route { sigmoid: false }, Self::Route { sigmoid: true }, Self::ExpertsSum]);
        let others = [Bits::Micro(Small::F4), Bits::Micro(Small::F8), Bits::B16, Bits::B32];
        for bits in CODES.map(Bits::Code).into_iter().chain(others) {
            all.push(Self::Embed { bits });
            for gated in [false, true] {
                all.push(Self::LinearMany { bits, gated });
                let tiles = [Tile::One, Tile::Most, Tile::Expert];
                all.extend(tiles.map(|tile| Self::LinearFew { bits, gated, tile }));
                if let Bits::Code(bits) = bits {
                    all.extend([Side::S8, Side::S16].map(|side| Self::LinearMatrix { bits, gated, side }));
                }
            }
        }
        for kv in [Kv::F16, Kv::F32] {
            all.push(Self::AttendWrite { kv });
            for queries in [Queries::Q8, Queries::Q16] {
                all.extend([Items::I1, Items::I2].map(|items| Self::Attend { kv, queries, items }));
            }
        }
        all
    }

    /// The template's name: the kernel is rendered from `wgsl/{stem}.wgsl`.
    pub(crate) fn stem(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::RopeAngles => "rope_angles",
            Self::Embed { .. } => "embed",
            Self::GatherCheck => "gather_check",
            Self::LinearRows => "linear_rows",
            Self::LinearFew { .. } => "linear_few",
            Self::LinearMany { .. } => "linear_many",
            Self::LinearMatrix { .. } => "linear_matrix",
            Self::Normalize { .. } => "normalize",
            Self::Route { .. } => "route",
            Self::ExpertsSum => "experts_sum",
            Self::AttendWrite { .. } => "attend_write",
            Self::Attend { .. } => "attend",
            Self::AttendMerge => "attend_merge",
            Self::ObserveClear => "observe_clear",
            Self::ObserveMark => "observe_mark",
            Self::SampleAdjust => "sample_adjust",
            Self::SampleChoose => "sample_choose",
        }
    }

    /// The struct of params.rs that it takes.
    pub(crate) fn params(self) -> &'static str {
        match self {
            Self::Copy => "CopyParams",
            Self::RopeAngles => "RopeAnglesParams",
            Self::Embed { .. } => "EmbedParams",
            Self::GatherCheck => "GatherCheckParams",
            Self::LinearRows | Self::LinearFew { .. } | Self::LinearMany { .. } | Self::LinearMatrix { .. } => {
                "LinearParams"
            }
            Self::Normalize { .. } => "NormalizeParams",
            Self::Route { .. } => "RouteParams",
            Self::ExpertsSum => "ExpertsSumParams",
            Self::AttendWrite { .. } | Self::Attend { .. } | Self::AttendMerge => "AttendParams",
            Self::ObserveClear => "ObserveClearParams",
            Self::ObserveMark => "ObserveMarkParams",
            Self::SampleAdjust => "SampleAdjustParams",
            Self::SampleChoose => "SampleChooseParams",
        }
    }

    /// Values of the template's variables.
    pub(crate) fn constants(self) -> Vec<(&'static str, u32)> {
        match self {
            Self::Embed { bits } => vec![("BITS", bits.count()), ("MICRO", micro(bits))],
            Self::LinearFew { bits, gated, tile } => {
                vec![
                    ("BITS", bits.count()),
                    ("MICRO", micro(bits)),
                    ("GATED", gated.into()),
                    ("TILE", tile.rows(gated)),
                    ("EXPERTS", matches!(tile, Tile::Expert).into()),
                ]
            }
            Self::LinearMany { bits, gated } => {
                vec![("BITS", bits.count()), ("MICRO", micro(bits)), ("GATED", gated.into())]
            }
            Self::LinearMatrix { bits, gated, side } => {
                vec![("BITS", bits as u32), ("MICRO", 0), ("GATED", gated.into()), ("SIDE", side as u32)]
            }
            Self::Normalize { adds } => vec![("ADDS", adds.into())],
            Self::Route { sigmoid } => vec![("SIGMOID", sigmoid.into())],
            Self::AttendWrite { kv } => vec![("KV", kv as u32)],
            Self::Attend { kv, queries, items } => {
                vec![("KV", kv as u32), ("QUERIES", queries as u32), ("ITEMS", items as u32)]
            }
            _ => vec![],
        }
    }

    /// The kernel's name: the stem and its constants.
    pub(crate) fn name(self) -> String {
        let constants = self.constants();
        let said = constants.iter().filter(|constant| **constant != ("MICRO", 0));
        let suffix: String = said.map(|(key, value)| format!("_{}{value}", key.to_lowercase())).collect();
        format!("{}{suffix}", self.stem())
    }

    /// Side of the matrices that a device's matrix units must multiply for it, if they must.
    pub(crate) fn matrix_side(self) -> Option<u32> {
        match self {
            Self::LinearMatrix { side, .. } => Some(side as u32),
            _ => None,
        }
    }
}

/// 1 for small floats, whose codes are not integers.
fn micro(bits: Bits) -> u32 {
    matches!(bits, Bits::Micro(_)).into()
}
