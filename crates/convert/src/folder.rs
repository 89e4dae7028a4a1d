//! The folder that a conversion writes: its state until it is whole, and the files beside the weights.

use crate::error::ConvertError;
use crate::layout::{Item, head};
use crc32fast::hash;
use mlx_serving_checkpoint::{Checkpoint, parse_json};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Names what is being written, until all of it is.
const STATE: &str = "unfinished-conversion.json";

/// Files that are read beside weights and configuration, by the ends of their names.
const BESIDE: [&str; 5] = [".json", ".jinja", ".txt", ".model", ".tiktoken"];

/// The folder of a conversion.
#[derive(Debug)]
pub(crate) struct Folder {
    pub path: PathBuf,
}

impl Folder {
    /// A folder that is new, empty, or has an unfinished conversion of the same source by the same plan, which is gone on with.
    pub(crate) fn begin(path: &Path, source: &Checkpoint, files: &[Vec<Item>]) -> Result<Self, ConvertError> {
        let failed = |e| ConvertError::write(path, e);
        fs::create_dir_all(path).map_err(failed)?;
        let heads: Vec<u32> =
            files.iter().map(|items| hash(&head(items.iter().flat_map(|item| &item.outputs)))).collect();
        let state = json!({ "source": written(source, files)?, "files": heads }).to_string();
        let place = path.join(STATE);
        match fs::read_to_string(&place) {
            Ok(found) if found == state => {}
            Ok(_) => {
                let message = "it holds an unfinished conversion of another checkpoint, or by another plan".into();
                return Err(ConvertError::Occupied { path: path.to_owned(), message });
            }
            Err(_) if fs::read_dir(path).map_err(failed)?.next().is_some() => {
                let message = "it is not empty".into();
                return Err(ConvertError::Occupied { path: path.to_owned(), message });
            }
            Err(_) => replace(&place, state.as_bytes())?,
        }
        Ok(Self { path: path.to_owned() })
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
            let to = self.path.join(&name);
            fs::copy(source.join(&name), &to).map_err(|e| ConvertError::write(&to, e))?;
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
            fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(|e| ConvertError::write(path, e))?;
        Ok((path.display().to_string(), modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()))
    };
    paths.into_iter().map(time).collect()
}

fn config(source: &Path) -> Result<Value, ConvertError> {
    let path = source.join("config.json");
    let bytes = fs::read(&path).map_err(|e| ConvertError::write(&path, e))?;
    parse_json(&bytes).map_err(|e| ConvertError::Plan(format!("{}: {e}", path.display())))
}

/// Names of the source's files beside weights and configuration.
fn beside(source: &Path) -> Result<Vec<String>, ConvertError> {
    let failed = |e| ConvertError::write(source, e);
    let mut names = Vec::new();
    for entry in fs::read_dir(source).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let wanted = BESIDE.iter().any(|end| name.ends_with(end));
        let made = name == "config.json" || name.ends_with(".safetensors.index.json");
        if wanted && !made && entry.path().is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
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
