use crate::HubError;
use std::fmt;

/// A model on the hub: `organization/name` or `name`, with `@revision` behind it where it is not that of the branch `main`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelId {
    name: String,
    revision: Option<String>,
}

/// Longest name, and longest revision, that the hub allows.
const MAX_LENGTH: usize = 96;
const MAX_REVISION: usize = 128;
/// Branch that an id without a revision means.
const MAIN: &str = "main";

impl ModelId {
    /// Checks an id by the hub's rules, so that it can be part of a path and of an address. A revision is a branch, a tag or a commit.
    ///
    /// # Errors
    /// [`HubError::Id`].
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        let named = name.len() <= MAX_LENGTH && !name.contains("--") && name.split('/').count() <= 2 && is_path(name);
        let revised = revision.is_none_or(|revision| revision.len() <= MAX_REVISION && is_path(revision));
        match named && revised {
            true => Ok(Self { name: name.to_owned(), revision: revision.map(str::to_owned) }),
            false => Err(HubError::Id { id: text.to_owned() }),
        }
    }

    /// `organization/name`, without a revision.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The branch, tag or commit that is named, if one is.
    #[must_use]
    pub fn named_revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// The branch, tag or commit.
    #[must_use]
    pub fn revision(&self) -> &str {
        self.named_revision().unwrap_or(MAIN)
    }

    /// Name of the model's folder in the cache.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}", self.name.replace('/', "--"))
    }

    /// The name whose folder this is.
    pub(crate) fn from_folder(folder: &str) -> Option<Self> {
        Self::parse(&folder.strip_prefix("models--")?.replacen("--", "/", 1)).ok()
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.revision {
            Some(revision) => write!(f, "{}@{revision}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// True for parts between slashes that neither leave a folder nor hide in it.
fn is_path(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: char| c == '-' || c == '.';
    let part =
        |part: &str| !part.is_empty() && part.chars().all(allowed) && !part.starts_with(edge) && !part.ends_with(edge);
    !text.contains("..") && text.split('/').all(part)
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
    fn a_revision_is_named_behind_the_name() {
        for (text, name, revision) in
            [("a/b", "a/b", "main"), ("a/b@v1.0", "a/b", "v1.0"), ("b@refs/pr/1", "b", "refs/pr/1")]
        {
            let id = ModelId::parse(text).unwrap();
            assert_eq!((id.name(), id.revision(), id.to_string().as_str()), (name, revision, text));
            assert_eq!(id.folder(), ModelId::parse(name).unwrap().folder());
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let long = "x".repeat(97);
        for name in ["", "/", "a/", "/a", "a/b/c", "../b", "a/..", "a--b", "a b", "-a", "a/b.", "a\\b", "ä", &long] {
            assert!(matches!(ModelId::parse(name), Err(HubError::Id { .. })), "{name:?}");
        }
        for revision in [
            "",
            "/",
            "a/",
            "/a",
            "..",
            "a/../b",
            "a..b",
            ".a",
            "a b",
            "a@b",
            "a?b",
            "a%2fb",
            "a\\b",
            "ä",
            &"x".repeat(129),
        ] {
            let id = format!("a/b@{revision}");
            assert!(matches!(ModelId::parse(&id), Err(HubError::Id { .. })), "{id:?}");
        }
    }
}
