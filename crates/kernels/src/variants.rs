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
        let suffix: String = self.constants.iter().map(|(key, value)| format!("_{key}{value}")).collect();
        format!("{}{suffix}", self.stem)
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Variant> {
    ["copy", "observe_clear", "observe_mark", "sample_adjust", "sample_choose"]
        .map(|stem| Variant { stem, constants: vec![] })
        .into()
}
