//! `config check|show|schema`

use super::serve;
use crate::args::Config as Action;
use crate::command_line;
use crate::config::Config;
use crate::context::Context;
use crate::failure::Failure;
use crate::machine::host_memory;
use crate::origins::{DEFAULT_PATH, Loaded};
use mlx_serving_runtime::Source;
use std::io::Write;

pub(crate) fn run(context: &Context, loaded: &Loaded, action: &Action) -> Result<(), Failure> {
    let text = match action {
        // Whatever is wrong with the file was reported when it was loaded.
        Action::Check(args) => check(context, loaded, &args.served_model_name)?,
        Action::Show(show) if show.json => {
            serde_json::to_string_pretty(&loaded.json().map_err(Failure::failed)?).map_err(Failure::failed)? + "\n"
        }
        Action::Show(_) => loaded.show().map_err(Failure::failed)?,
        Action::Schema => {
            let schema = schemars::schema_for!(Config);
            serde_json::to_string_pretty(&schema).map_err(Failure::failed)? + "\n"
        }
    };
    anstream::stdout().write_all(text.as_bytes()).map_err(Failure::output)
}

/// A report on a configuration with which `serve` would start.
fn check(context: &Context, loaded: &Loaded, names: &[String]) -> Result<String, Failure> {
    let faults: Vec<String> = command_line::faults();
    if !faults.is_empty() {
        return Err(Failure::usage(faults.join("\n")));
    }
    let strangers = serve::check(context, names)?;
    if context.config.models.serve.is_empty() {
        Source::Bundled.here()?;
    }
    let found = context.runtime().check_configured()?;
    let state = match &loaded.path {
        Some(path) => format!("{}: valid", path.display()),
        None => format!("{DEFAULT_PATH} is not there: the defaults are in force"),
    };
    let warnings = context.config.warnings(host_memory().map(|memory| memory.total)).into_iter();
    let of_models =
        found.into_iter().flat_map(|(name, warnings)| warnings.into_iter().map(move |w| format!("{name}: {w}")));
    let lines: Vec<String> = std::iter::once(state).chain(warnings).chain(strangers).chain(of_models).collect();
    Ok(lines.join("\n") + "\n")
}
