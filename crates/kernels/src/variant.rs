//! Keys of the kernels. The build script includes this file, too: it renders a kernel for each key, so that lowering cannot ask for
//! one that does not exist.

/// Key of a kernel: its template, and the template's constants.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Variant {
    Copy,
    RopeAngles,
    Embed { bits: Bits },
    GatherCheck,
    LinearRows,
    LinearFew { bits: Bits, gated: bool, tile: Tile },
    LinearMany { bits: Bits, gated: bool },
    LinearMatrix { bits: Code, gated: bool, side: Side },
    Normalize { adds: bool },
    Route { sigmoid: bool },
    ExpertsSum,
    AttendWrite { kv: Kv },
    Attend { kv: Kv, queries: Queries, items: Items },
    AttendMerge,
    ObserveClear,
    ObserveMark,
    SampleAdjust,
    SampleChoose,
}

/// Bits of a weight.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bits {
    /// Codes of affine weights.
    Code(Code),
    /// Small floats.
    Micro(Small),
    /// Dense f16 and bf16.
    B16,
    /// Dense f32.
    B32,
}

impl Bits {
    pub(crate) fn count(self) -> u32 {
        match self {
            Bits::Code(code) => code as u32,
            Bits::Micro(small) => small as u32,
            Bits::B16 => 16,
            Bits::B32 => 32,
        }
    }
}

/// Bits of an affine weight's code.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Code {
    B2 = 2,
    B3 = 3,
    B4 = 4,
    B5 = 5,
    B6 = 6,
    B8 = 8,
}

/// Bits of a small float: E2M1 or E4M3.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Small {
    F4 = 4,
    F8 = 8,
}

/// Rows that take a weight together where there are few; `Expert` is one that takes the part of its expert.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tile {
    One,
    Most,
    Expert,
}

impl Tile {
    /// A gate has two weights' sums, which are twice the workgroup memory.
    pub(crate) fn rows(self, gated: bool) -> u32 {
        match (self, gated) {
            (Tile::One | Tile::Expert, _) => 1,
            (Tile::Most, true) => 4,
            (Tile::Most, false) => 8,
        }
    }
}

/// Side of the squares that matrix units multiply.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    S8 = 8,
    S16 = 16,
}

/// Bits of keys and values in the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kv {
    F16 = 16,
    F32 = 32,
}

/// Queries that a workgroup of attention has room for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Queries {
    Q8 = 8,
    Q16 = 16,
}

/// Eights of columns of each lane in attention.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Items {
    I1 = 1,
    I2 = 2,
}
