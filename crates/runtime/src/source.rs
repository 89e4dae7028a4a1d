use crate::error::RuntimeError;
use crate::hub::hub;
use mlx_serving_hub::ModelId;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

/// The bundled model's folder under `models/`.
const BUNDLED: &str = "rustbook-5m-4bit";

/// The source tree, unless the build is to be given away: its path would be in the file.
const SOURCE_TREE: Option<&str> = match option_env!("MLX_SERVING_PACKAGED") {
    None => Some(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")),
    Some(_) => None,
};

static LIBRARY_MODELS: OnceLock<PathBuf> = OnceLock::new();

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
    /// The name that the model is served under: its folder's as the path has it, its id where the folder is the hub's cache's, or the id
    /// itself. It can be told before the model is there.
    pub fn id(&self) -> String {
        self.id_of(1)
    }

    /// The names of several, in order: the shortest ends of their paths that tell those of one name apart.
    ///
    /// # Errors
    /// A model that is named twice, as it was given.
    pub fn ids(sources: &[Self]) -> Result<Vec<String>, String> {
        let mut lengths = vec![1; sources.len()];
        loop {
            let ids: Vec<String> = sources.iter().zip(&lengths).map(|(source, &parts)| source.id_of(parts)).collect();
            let alike = |i: usize| (0..ids.len()).any(|j| i != j && ids[i] == ids[j]);
            let Some(first) = (0..ids.len()).find(|&i| alike(i)) else { return Ok(ids) };
            let mut grown = false;
            for i in 0..ids.len() {
                if ids[i] == ids[first] && sources[i].id_of(lengths[i] + 1) != ids[i] {
                    (lengths[i], grown) = (lengths[i] + 1, true);
                }
            }
            if !grown {
                return Err(sources[first].given().to_owned());
            }
        }
    }

    fn given(&self) -> &str {
        match self {
            Self::Bundled => BUNDLED,
            Self::Named(name) => name,
        }
    }

    /// The name with so many parts of the folder's path, if there are so many.
    fn id_of(&self, parts: usize) -> String {
        let Self::Named(name) = self else { return BUNDLED.to_owned() };
        let Some(path) = folder(name) else { return name.clone() };
        if let Some(id) = cached(&path) {
            return id;
        }
        let names: Vec<_> = path.iter().filter(|part| *part != std::path::MAIN_SEPARATOR_STR).collect();
        let end: Vec<_> =
            names[names.len().saturating_sub(parts)..].iter().map(|part| part.to_string_lossy()).collect();
        end.join("/")
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

/// The folder of that name as an absolute path, in which links stand as they were given.
fn folder(name: &str) -> Option<PathBuf> {
    let path = std::path::absolute(name).ok().filter(|path| path.is_dir())?;
    // Where a path leads up, only the system knows the name of what it leads to.
    let leads_up = path.components().any(|part| part == Component::ParentDir);
    if leads_up || path.file_name().is_none() { path.canonicalize().ok() } else { Some(path) }
}

/// The id of the model whose snapshot in the hub's cache the folder is: `models--ORG--NAME/snapshots/REVISION`.
fn cached(folder: &Path) -> Option<String> {
    let snapshots = folder.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"))?;
    let model = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    Some(model.replacen("--", "/", 1))
}

/// Says where a library has the bundled model, in a folder of models: the program that loaded it is another's. The first call counts.
pub fn set_bundled_models(folder: PathBuf) {
    let _ = LIBRARY_MODELS.set(folder);
}

/// Finds the bundled model: with the library, with the binary as installed, in the current folder, or in the source tree it was built from.
fn bundled() -> Result<PathBuf, RuntimeError> {
    let library = LIBRARY_MODELS.get().cloned();
    // Package managers install a link to the binary, and macOS gives the link's path.
    let binary = std::env::current_exe().and_then(|binary| binary.canonicalize()).ok();
    let source = SOURCE_TREE.map(|root| Path::new(root).join("models"));
    let installed = binary.iter().flat_map(|binary| installed_models(binary));
    let places = library.into_iter().chain(installed).chain([PathBuf::from("models")]).chain(source);
    let mut folders = places.map(|dir| dir.join(BUNDLED));
    folders.find(|dir| dir.join("config.json").is_file()).ok_or(RuntimeError::NoBundledModel(BUNDLED))
}

/// Folders of models of a binary: `models` beside it, and `share/mlx-serving/models` beside its folder, as in an archive.
fn installed_models(binary: &Path) -> Vec<PathBuf> {
    let Some(folder) = binary.parent() else { return Vec::new() };
    let shared = folder.parent().map(|prefix| prefix.join("share/mlx-serving/models"));
    [folder.join("models")].into_iter().chain(shared).collect()
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
    fn models_are_beside_the_binary_or_in_the_shared_folder_of_its_prefix() {
        let places = |binary: &str| installed_models(Path::new(binary));
        assert_eq!(
            places("/opt/mlx/bin/mlx-serving"),
            ["/opt/mlx/bin/models", "/opt/mlx/share/mlx-serving/models"].map(PathBuf::from)
        );
        assert_eq!(places("/mlx-serving"), ["/models"].map(PathBuf::from), "nothing is above the root");
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
        assert_eq!(Source::from(format!("{}/", folder.display()).as_str()).id(), "Qwen2.5-0.5B");
        assert_eq!(Source::from(format!("{}/../Qwen2.5-0.5B/.", folder.display()).as_str()).id(), "Qwen2.5-0.5B");
        assert_eq!(Source::from("org/name").id(), "org/name");
        assert_eq!(Source::Bundled.id(), BUNDLED);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_has_its_own_name_and_a_snapshot_of_the_cache_its_models() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = dir.path().join("models--mlx-community--Qwen3-0.6B--4bit/snapshots/0123abcd");
        std::fs::create_dir_all(&snapshot).unwrap();
        let link = dir.path().join("my-model");
        std::os::unix::fs::symlink(&snapshot, &link).unwrap();
        assert_eq!(Source::from(link.to_str()).id(), "my-model");
        assert_eq!(Source::from(snapshot.to_str()).id(), "mlx-community/Qwen3-0.6B--4bit");
        let other = dir.path().join("models--x/notes/0123abcd");
        std::fs::create_dir_all(&other).unwrap();
        assert_eq!(Source::from(other.to_str()).id(), "0123abcd");
    }

    #[test]
    fn folders_of_one_name_are_told_apart_by_their_parents() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |path: &str| {
            let folder = dir.path().join(path);
            std::fs::create_dir_all(&folder).unwrap();
            Source::from(folder.to_str())
        };
        let [a, b, deep, other] = ["a/m", "b/m", "b/b/m", "n"].map(folder);
        let ids = |sources: &[&Source]| Source::ids(&sources.iter().map(|s| (*s).clone()).collect::<Vec<_>>());
        let names = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(ids(&[&a, &other]), names(&["m", "n"]));
        assert_eq!(ids(&[&a, &b, &other]), names(&["a/m", "b/m", "n"]));
        let parent = dir.path().file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(ids(&[&b, &deep]), names(&[&format!("{parent}/b/m"), "b/b/m"]));
        assert_eq!(ids(&[&a, &b, &a]), Err(a.given().to_owned()), "one folder twice");
        assert!(Path::new(a.given()).is_absolute(), "as it was given");
        let hub = Source::from("org/name");
        assert_eq!(ids(&[&hub, &hub]), Err("org/name".into()));
    }
}
