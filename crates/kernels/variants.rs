//! Every variant of every kernel: what the build script renders, and what lowering may ask for.

/// One kernel to be rendered from `wgsl/{stem}.wgsl`.
pub(crate) struct Variant {
    /// The template's name.
    pub(crate) stem: &'static str,
    /// Values of the template's variables.
    pub(crate) constants: Vec<(&'static str, u32)>,
}

impl Variant {
    /// The kernel's name: the stem and its constants.
    pub(crate) fn name(&self) -> String {
        let suffix: String =
            self.constants.iter().map(|(key, value)| format!("_{}{value}", key.to_lowercase())).collect();
        format!("{}{suffix}", self.stem)
    }

    /// Side of the matrices that a device's matrix units must multiply for it, if they must.
    pub(crate) fn matrix_side(&self) -> Option<u32> {
        self.constants.iter().find(|(key, _)| *key == "SIDE").map(|(_, side)| *side)
    }
}

/// Bits of a weight: codes of affine weights, 16 for f16 and bf16, 32 for f32.
const BITS: [u32; 8] = [2, 3, 4, 5, 6, 8, 16, 32];

/// All of them.
pub(crate) fn all() -> Vec<Variant> {
    let plain = |stem| Variant { stem, constants: vec![] };
    let mut all: Vec<Variant> =
        ["copy", "rope_angles", "gather_check", "linear_rows", "attend_merge"].map(plain).into();
    all.extend(["observe_clear", "observe_mark", "sample_adjust", "sample_choose"].map(plain));
    for bits in BITS {
        all.push(Variant { stem: "embed", constants: vec![("BITS", bits)] });
        for gated in [0, 1] {
            all.push(Variant { stem: "linear_many", constants: vec![("BITS", bits), ("GATED", gated)] });
            // Two weights' sums are twice the workgroup memory.
            for tile in [1, if gated == 1 { 4 } else { 8 }] {
                let constants = vec![("BITS", bits), ("GATED", gated), ("TILE", tile)];
                all.push(Variant { stem: "linear_few", constants });
            }
            if bits <= 8 {
                all.extend([8, 16].map(|side| Variant {
                    stem: "linear_matrix",
                    constants: vec![("BITS", bits), ("GATED", gated), ("SIDE", side)],
                }));
            }
        }
    }
    for kv in [16, 32] {
        all.push(Variant { stem: "attend_write", constants: vec![("KV", kv)] });
        for (queries, items) in [(8, 1), (8, 2), (16, 1), (16, 2)] {
            all.push(Variant { stem: "attend", constants: vec![("KV", kv), ("QUERIES", queries), ("ITEMS", items)] });
        }
    }
    all
}
