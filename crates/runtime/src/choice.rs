/// A device as `engine.device` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The best that there is.
    Auto,
    /// The processor.
    Cpu,
    /// The system's GPU through Metal.
    Metal,
    /// The device of that number, or the first that can be used.
    Vulkan(Option<usize>),
}

impl Choice {
    /// The device of that name; `None` for a name that is none.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "metal" => Some(Self::Metal),
            "vulkan" => Some(Self::Vulkan(None)),
            _ => name.strip_prefix("vulkan:")?.parse().ok().map(|index| Self::Vulkan(Some(index))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_are_known_or_refused() {
        assert_eq!(Choice::parse("vulkan:1"), Some(Choice::Vulkan(Some(1))));
        assert_eq!(Choice::parse("vulkan"), Some(Choice::Vulkan(None)));
        assert_eq!(Choice::parse("auto"), Some(Choice::Auto));
        for name in ["", "gpu", "vulkan:", "vulkan:x", "vulkan:-1", "cpu:0"] {
            assert_eq!(Choice::parse(name), None, "{name}");
        }
    }
}
