//! The folder that a conversion writes: its state until it is whole, and the files beside the weights.

use crate::error::ConvertError;
use crate::layout::{Item, head};
use crc32fast::hash;
use mlx_serving_checkpoint::{Checkpoint, parse_json};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Names what is being written, until all of it is.
const STATE: &str = "unfinished-conversion.json";

/// Files that are read beside weights and configuration, by the ends of their names.
const BESIDE: [&str; 5] = [".json", ".jinja", ".txt", ".model", ".tiktoken"];

/// Folders of further chat templates.
const TEMPLATES: &str = "additional_chat_templates";

/// The folder of a conversion, which no other writes meanwhile.
#[derive(Debug)]
pub(crate) struct Folder {
    pub path: PathBuf,
    /// The state, locked as long as it is open.
    _state: File,
}

impl Folder {
    /// A folder that is new, empty, or has an unfinished conversion of the same source by the same plan, which is gone on with.
    pub(crate) fn begin(path: &Path, source: &Checkpoint, files: &[Vec<Item>]) -> Result<Self, ConvertError> {
        let failed = |e| ConvertError::write(path, e);
        let occupied = |message: &str| Err(ConvertError::Occupied { path: path.to_owned(), message: message.into() });
        fs::create_dir_all(path).map_err(failed)?;
        if fs::canonicalize(path).ok() == fs::canonicalize(source.dir()).ok() {
            return occupied("it is the source itself; name another folder");
        }
        let place = path.join(STATE);
        if !place.exists() {
            if path.join("config.json").exists() {
                return occupied("it holds a model already; name another folder");
            }
            // A part may be left of a file that was never whole.
            let mut entries = fs::read_dir(path).map_err(failed)?.flatten();
            if entries.any(|entry| entry.path().extension().is_none_or(|end| end != "part")) {
                return occupied("it is not empty; name another folder");
            }
        }
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&place).map_err(failed)?;
        if file.try_lock().is_err() {
            return occupied("another run is writing it; wait until that has ended");
        }
        let heads: Vec<u32> =
            files.iter().map(|items| hash(&head(items.iter().flat_map(|item| &item.outputs)))).collect();
        let state = json!({ "source": written(source, files)?, "files": heads }).to_string();
        let mut found = String::new();
        file.read_to_string(&mut found).map_err(failed)?;
        if found.is_empty() {
            file.write_all(state.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        } else if found != state {
            return occupied(
                "it holds an unfinished conversion of another checkpoint, of one that was written to since, or by another plan; \
                 name another folder, or remove this one to begin anew",
            );
        }
        Ok(Self { path: path.to_owned(), _state: file })
    }

    /// Writes the index of several files, the configuration, and what else the source has; then it is whole.
    pub(crate) fn finish(
        &self,
        source: &Path,
        files: &[Vec<Item>],
        names: &[String],
        quantization: Option<Value>,
    ) -> Result<(), ConvertError> {
        for name in beside(source)? {
            let (from, to) = (source.join(&name), self.path.join(&name));
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).map_err(|e| ConvertError::write(folder, e))?;
            }
            replace(&to, &fs::read(&from).map_err(|e| ConvertError::read(&from, e))?)?;
        }
        if files.len() > 1 {
            let outputs = |items: &'_ [Item]| items.iter().flat_map(|item| item.outputs.clone()).collect::<Vec<_>>();
            let all =
                files.iter().zip(names).flat_map(|(items, file)| outputs(items).into_iter().map(move |o| (o, file)));
            let map: BTreeMap<String, &String> = all.clone().map(|(output, file)| (output.name, file)).collect();
            let total: u64 = all.map(|(output, _)| output.bytes).sum();
            let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
            replace(&self.path.join("model.safetensors.index.json"), pretty(&index).as_bytes())?;
        }
        let mut config = config(source)?;
        if let Some(quantization) = quantization {
            // The second name is the one that transformers looks for.
            config["quantization"] = quantization.clone();
            config["quantization_config"] = quantization;
        }
        replace(&self.path.join("config.json"), pretty(&config).as_bytes())?;
        let state = self.path.join(STATE);
        fs::remove_file(&state).map_err(|e| ConvertError::write(&state, e))
    }
}

/// The source's files of weights, each with the time when it was last written.
fn written(source: &Checkpoint, files: &[Vec<Item>]) -> Result<BTreeMap<String, u128>, ConvertError> {
    let paths: BTreeSet<&Path> = files.iter().flatten().map(|item| source.path_of(&item.source)).collect();
    let time = |path: &Path| {
        let modified =
            fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(|e| ConvertError::read(path, e))?;
        let path = fs::canonicalize(path).map_err(|e| ConvertError::read(path, e))?;
        Ok((path.display().to_string(), modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()))
    };
    paths.into_iter().map(time).collect()
}

fn config(source: &Path) -> Result<Value, ConvertError> {
    let path = source.join("config.json");
    let bytes = fs::read(&path).map_err(|e| ConvertError::read(&path, e))?;
    parse_json(&bytes).map_err(|e| ConvertError::Plan(format!("{}: {e}", path.display())))
}

/// The source's files beside weights and configuration, and those in the folders that models have: of templates, and of what embedding
/// models list in `modules.json`.
fn beside(source: &Path) -> Result<Vec<PathBuf>, ConvertError> {
    let made = |path: &Path| {
        path.to_str().is_some_and(|name| name == "config.json" || name.ends_with(".safetensors.index.json"))
    };
    let mut all: Vec<PathBuf> = files_in(source, Path::new(""))?.into_iter().filter(|path| !made(path)).collect();
    let modules = source.join("modules.json");
    let listed = match fs::read(&modules) {
        Ok(bytes) => parse_json(&bytes).map_err(|e| ConvertError::Plan(format!("{}: {e}", modules.display())))?,
        Err(_) => Value::Null,
    };
    let listed = listed.as_array().into_iter().flatten().filter_map(|module| module["path"].as_str());
    // Sentence transformers' own name, where no list names one.
    for folder in listed.chain(["1_Pooling", TEMPLATES]).collect::<BTreeSet<_>>() {
        let plain = Path::new(folder).components().eq([Component::Normal(folder.as_ref())]);
        if plain && source.join(folder).is_dir() {
            all.extend(files_in(source, Path::new(folder))?);
        }
    }
    all.sort();
    Ok(all)
}

/// Files of one of the source's folders that are read beside weights.
fn files_in(source: &Path, folder: &Path) -> Result<Vec<PathBuf>, ConvertError> {
    let path = source.join(folder);
    let failed = |e| ConvertError::read(&path, e);
    let mut found = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| BESIDE.iter().any(|end| name.ends_with(end))) && entry.path().is_file() {
            found.push(folder.join(name));
        }
    }
    Ok(found)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Writes a file at once or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), ConvertError> {
    let part = path.with_extension("part");
    let write = fs::write(&part, bytes).and_then(|()| fs::rename(&part, path));
    write.map_err(|e| ConvertError::write(path, e))
}
