//! `config check|show|schema`

use super::Context;
use crate::args::Config as Action;
use crate::config::{Config, DEFAULT_PATH, Loaded};
use crate::failure::Failure;
use crate::{device, fit, load};
use mlx_serving_checkpoint::Checkpoint;
use std::io::Write;
use std::path::Path;

pub(crate) fn run(context: &Context, loaded: &Loaded, action: &Action) -> Result<(), Failure> {
    let text = match action {
        // Whatever is wrong was reported when it was loaded.
        Action::Check => {
            let state = match &loaded.path {
                Some(path) => format!("{}: valid\n", path.display()),
                None => format!("{DEFAULT_PATH} is not there: the defaults are in force\n"),
            };
            state + &misfits(context)?
        }
        Action::Show => loaded.show().map_err(Failure::failed)?,
        Action::Schema => {
            let schema = schemars::schema_for!(Config);
            serde_json::to_string_pretty(&schema).map_err(Failure::failed)? + "\n"
        }
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::output)
}

/// A line for each model that `serve` would load and whose working set does not fit the memory pool. Models of the hub are left
/// out: they may not be here yet.
fn misfits(context: &Context) -> Result<String, Failure> {
    let m = &context.config.metal_optimizations;
    if !(m.enabled && m.memory_pool.enabled) {
        return Ok(String::new());
    }
    let device = device::open(&context.config.engine)?;
    let named = &context.config.models.serve;
    let local = named.iter().filter(|name| Path::new(name).is_dir()).map(|name| Some(name.as_str()));
    let models: Vec<Option<&str>> = if named.is_empty() { vec![None] } else { local.collect() };
    let mut lines = String::new();
    for model in models {
        let (dir, name) = load::resolve(context, model)?;
        let checkpoint = Checkpoint::open(&dir).map_err(Failure::failed)?;
        if let Some(misfit) = fit::misfit(&context.config, &checkpoint, device.as_ref()) {
            lines += &format!("{name}: {misfit}\n");
        }
    }
    Ok(lines)
}
