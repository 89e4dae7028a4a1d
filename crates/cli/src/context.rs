//! State that every command has at hand, and its output.

use crate::args::TemplateArg;
use crate::failure::Failure;
use crate::load;
use mlx_serving_runtime::{Config, Model, OpenOptions, Runtime, Source};
use std::path::Path;

/// The configuration in force.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub config: Config,
}

impl Context {
    pub(crate) fn new(config: Config) -> Self {
        Self { config }
    }

    /// A runtime of the configuration, in which no model is open.
    pub(crate) fn runtime(&self) -> Runtime {
        Runtime::new(self.config.clone())
    }

    /// Opens the only model of a command, the bundled one if none is named, with a chat template that may be another than its own.
    pub(crate) fn load_with(&self, model: Option<&str>, template: &TemplateArg) -> Result<Model, Failure> {
        let options = OpenOptions { chat_template: template.chat_template.clone(), ..OpenOptions::default() };
        Ok(load::open(&self.runtime(), &Source::from(model), options)?)
    }
}

/// Refuses a result file that cannot be written, before anything is measured for it. What is there already is left as it is.
pub(crate) fn check_file(path: &Path) -> Result<(), Failure> {
    let there = path.exists();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let opened = folder
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::OpenOptions::new().append(true).create(true).open(path));
    opened.map_err(|e| Failure::usage(format!("--output {}: {e}; name another file", path.display())))?;
    if !there {
        // It is written again, or nothing was measured.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Writes a result file, its folders too.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    folder
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(path, bytes))
        .map_err(|e| Failure::failed(format!("{}: {e}", path.display())))
}
