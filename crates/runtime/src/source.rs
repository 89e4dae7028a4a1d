use crate::error::RuntimeError;
use crate::hub::hub;
use mlx_serving_hub::ModelId;
use std::path::{Path, PathBuf};

/// The bundled model's folder under `models/`.
const BUNDLED: &str = "rustbook-5m-4bit";

/// Place of a model, looked for when it is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Source {
    /// The model that comes with the program.
    #[default]
    Bundled,
    /// A folder, the id of a model on the hub, or the bundled model's name.
    Named(String),
}

impl From<&str> for Source {
    fn from(name: &str) -> Self {
        Self::Named(name.to_owned())
    }
}

impl From<Option<&str>> for Source {
    fn from(name: Option<&str>) -> Self {
        name.map_or(Self::Bundled, Self::from)
    }
}

impl Source {
    /// The name that the model is served under: its folder's, or its id. It can be told before the model is there.
    pub fn id(&self) -> String {
        let Self::Named(name) = self else { return BUNDLED.to_owned() };
        let folder = Path::new(name).canonicalize().ok().filter(|path| path.is_dir());
        let folder = folder.and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        folder.unwrap_or_else(|| name.clone())
    }

    /// The model's folder, if it is on this machine. Downloads nothing.
    ///
    /// # Errors
    /// The bundled model is not installed; the name is a path and no folder is there, or it is no id; the cache cannot be read.
    pub fn here(&self) -> Result<Option<PathBuf>, RuntimeError> {
        match self {
            Self::Named(name) if Path::new(name).is_dir() => Ok(Some(PathBuf::from(name))),
            Self::Named(name) if names_path(name) => Err(RuntimeError::NoFolder(name.into())),
            Self::Named(id) if id != BUNDLED => {
                let id = ModelId::parse(id)?;
                Ok(hub()?.cache().snapshot(&id)?)
            }
            Self::Bundled | Self::Named(_) => bundled().map(Some),
        }
    }

    /// The model's folder, downloaded first if need be; `progress` is told of the download.
    ///
    /// # Errors
    /// As [`Self::here`], and what a download can end with.
    pub fn find(&self, progress: &mut dyn FnMut(mlx_serving_hub::Progress<'_>)) -> Result<PathBuf, RuntimeError> {
        if let Some(folder) = self.here()? {
            return Ok(folder);
        }
        let id = ModelId::parse(&self.id())?;
        Ok(hub()?.resolve(&id, progress)?)
    }
}

/// True for what can only be meant as a path: no id begins, ends or is parted so, and a file that is there is none either.
fn names_path(name: &str) -> bool {
    let before_revision = name.split('@').next().unwrap_or_default();
    name.starts_with(['.', '/', '~'])
        || name.contains('\\')
        || before_revision.ends_with('/')
        || before_revision.matches('/').count() > 1
        || Path::new(name).exists()
}

/// Finds the bundled model: beside the binary as installed, in the current folder, or in the source tree it was built from.
fn bundled() -> Result<PathBuf, RuntimeError> {
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(|dir| dir.join("models")));
    let places =
        [beside, Some(PathBuf::from("models")), Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models"))];
    let mut folders = places.into_iter().flatten().map(|dir| dir.join(BUNDLED));
    folders.find(|dir| dir.join("config.json").is_file()).ok_or(RuntimeError::NoBundledModel(BUNDLED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_the_bundled_model_are_here() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Source::from(dir.path().to_str()).here().unwrap().as_deref(), Some(dir.path()));
        assert_eq!(Source::Bundled.here().unwrap(), Source::from(BUNDLED).here().unwrap());
        assert!(Source::from("no such model").here().is_err(), "neither a folder nor an id");
    }

    #[test]
    fn a_path_without_a_folder_is_said_to_be_one() {
        let (dir, file) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let gone = dir.path().join("gone");
        for path in [
            gone.to_str().unwrap(),
            "./gone",
            "../gone",
            "~/models/gone",
            "models/org/gone",
            "gone/",
            "a\\b",
            file.path().to_str().unwrap(),
        ] {
            let error = Source::from(path).here().unwrap_err();
            assert!(matches!(&error, RuntimeError::NoFolder(named) if named == Path::new(path)), "{path}: {error}");
            assert!(error.to_string().contains(path) && !error.to_string().contains("the hub"), "{error}");
        }
        let error = Source::from(file.path().to_str()).here().unwrap_err().to_string();
        assert!(error.contains("is a file"), "{error}");
        for id in ["gone", "org/gone", "org/gone@refs/pr/1"] {
            assert!(!names_path(id), "{id}");
        }
    }

    #[test]
    fn a_model_is_named_after_its_folder_or_by_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("Qwen2.5-0.5B");
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(Source::from(folder.to_str()).id(), "Qwen2.5-0.5B");
        assert_eq!(Source::from("org/name").id(), "org/name");
        assert_eq!(Source::Bundled.id(), BUNDLED);
    }
}
