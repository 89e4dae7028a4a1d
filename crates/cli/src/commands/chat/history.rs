//! The file of lines that were sent in earlier conversations.

use std::path::{Path, PathBuf};

/// Lines that are kept.
pub(super) const LINES: usize = 1000;
/// Bytes of a line that is kept: what is longer was pasted.
pub(super) const LINE_BYTES: usize = 16 << 10;

/// The file in this user's state folder; `None` where there is neither a variable nor a home folder.
pub(super) fn file() -> Option<PathBuf> {
    let folder = folder(|name| std::env::var_os(name).map(PathBuf::from), std::env::home_dir())?;
    Some(folder.join("mlx-serving/chat_history"))
}

/// Makes the file's folder, for this user only.
pub(super) fn make_folder(file: &Path) -> std::io::Result<()> {
    let Some(folder) = file.parent() else { return Ok(()) };
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// `XDG_STATE_HOME`, which counts if it is absolute, else the system's own folder in the home folder.
fn folder(variable: impl Fn(&str) -> Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let own = match std::env::consts::OS {
        "macos" => "Library/Application Support",
        "windows" => "AppData/Local",
        _ => ".local/state",
    };
    let set = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    set.or_else(|| home.map(|home| home.join(own)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_variable_goes_before_the_home_folder() {
        let with = |set: Option<&str>, home: Option<&str>| folder(|_| set.map(PathBuf::from), home.map(PathBuf::from));
        assert_eq!(with(Some("/s"), Some("/h")), Some("/s".into()));
        assert!(with(Some("s"), Some("/h")).is_some_and(|folder| folder.starts_with("/h")));
        assert!(with(None, Some("/h")).is_some_and(|folder| folder.starts_with("/h")));
        assert_eq!(with(None, None), None);
    }
}
