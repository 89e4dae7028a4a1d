//! Folders of this user's caches.

use std::path::PathBuf;

/// Folder in which drivers keep their compiled kernels from run to run.
pub(crate) fn pipelines() -> Option<PathBuf> {
    let caches = folder(|name| std::env::var_os(name).map(PathBuf::from), std::env::home_dir());
    caches.map(|caches| caches.join("mlx-serving/pipelines"))
}

/// `XDG_CACHE_HOME`, which counts if it is absolute, else `.cache` in the home folder; `None` where there is neither.
pub(crate) fn folder(variable: impl Fn(&str) -> Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let set = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    set.or_else(|| home.map(|home| home.join(".cache")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_variable_goes_before_the_home_folder() {
        let with = |set: Option<&str>, home: Option<&str>| folder(|_| set.map(PathBuf::from), home.map(PathBuf::from));
        assert_eq!(with(Some("/c"), Some("/h")), Some("/c".into()));
        assert_eq!(with(Some("c"), Some("/h")), Some("/h/.cache".into()));
        assert_eq!(with(None, Some("/h")), Some("/h/.cache".into()));
        assert_eq!(with(None, None), None);
    }
}
