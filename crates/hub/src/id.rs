use crate::HubError;
use std::fmt;

/// A model's name on the hub, `organization/name` or `name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelId(String);

/// Longest id that the hub allows.
const MAX_LENGTH: usize = 96;

impl ModelId {
    /// Checks a name by the hub's rules, so that it can be part of a path and of an address.
    ///
    /// # Errors
    /// [`HubError::Id`].
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let part = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let edge = |c: char| c == '-' || c == '.';
            !part.is_empty() && part.chars().all(allowed) && !part.starts_with(edge) && !part.ends_with(edge)
        };
        let ambiguous = text.contains("--") || text.contains("..");
        let valid = text.len() <= MAX_LENGTH && !ambiguous && text.split('/').count() <= 2 && text.split('/').all(part);
        if valid { Ok(Self(text.to_owned())) } else { Err(HubError::Id { id: text.to_owned() }) }
    }

    /// `organization/name`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the model's folder in the cache.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }

    /// The name whose folder this is.
    pub(crate) fn from_folder(folder: &str) -> Option<Self> {
        Self::parse(&folder.strip_prefix("models--")?.replacen("--", "/", 1)).ok()
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub_go_through_folders_and_back() {
        for name in ["gpt2", "mlx-community/Qwen2.5-0.5B-Instruct-4bit", "a/b_c.d"] {
            let id = ModelId::parse(name).unwrap();
            assert_eq!(ModelId::from_folder(&id.folder()).as_ref(), Some(&id));
        }
        assert_eq!(ModelId::parse("a/b").unwrap().folder(), "models--a--b");
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let long = "x".repeat(97);
        for name in ["", "/", "a/", "/a", "a/b/c", "../b", "a/..", "a--b", "a b", "-a", "a/b.", "a\\b", "ä", &long] {
            assert!(matches!(ModelId::parse(name), Err(HubError::Id { .. })), "{name:?}");
        }
    }
}
