//! `config check|show|schema`

use super::serve;
use crate::args::Config as Action;
use crate::config::Config;
use crate::context::Context;
use crate::failure::Failure;
use crate::origins::{DEFAULT_PATH, Loaded};
use std::io::Write;

pub(crate) fn run(context: &Context, loaded: &Loaded, action: &Action) -> Result<(), Failure> {
    let text = match action {
        // Whatever is wrong was reported when it was loaded.
        Action::Check => {
            let state = match &loaded.path {
                Some(path) => format!("{}: valid\n", path.display()),
                None => format!("{DEFAULT_PATH} is not there: the defaults are in force\n"),
            };
            serve::check(context)?;
            let found = context.runtime().check_configured()?;
            let lines =
                found.iter().flat_map(|(name, warnings)| warnings.iter().map(move |w| format!("{name}: {w}\n")));
            state + &lines.collect::<String>()
        }
        Action::Show => loaded.show().map_err(Failure::failed)?,
        Action::Schema => {
            let schema = schemars::schema_for!(Config);
            serde_json::to_string_pretty(&schema).map_err(Failure::failed)? + "\n"
        }
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::output)
}
