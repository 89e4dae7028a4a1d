//! Types of the configuration for the bindings, from the type that reads `runtime.yaml`: names, defaults, ranges and texts are the same
//! in every language. Rules that span two keys are checked by the engine.
//!
//! `cargo run -p schemas -- --write` rewrites the files; the test compares them.

mod python;
mod section;
mod typescript;

use section::Section;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let write = std::env::args().skip(1).collect::<Vec<_>>() == ["--write"];
    let mut out = std::io::stdout().lock();
    for (path, text) in files()? {
        if write {
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            writeln!(out, "wrote {}", path.display())?;
        } else {
            writeln!(out, "{text}")?;
        }
    }
    Ok(())
}

/// Paths of the generated files and what belongs in them.
fn files() -> Result<[(PathBuf, String); 2], Box<dyn Error>> {
    let sections = Section::all(&schemars::schema_for!(mlx_serving_runtime::config::Config).to_value())?;
    let bindings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bindings");
    Ok([
        (bindings.join("node/src/schemas/runtime.ts"), typescript::file(&sections)),
        (bindings.join("python/python/mlx_serving/config_types.py"), python::file(&sections)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_what_the_configuration_says() {
        for (path, text) in files().unwrap() {
            let file = std::fs::read_to_string(&path).unwrap();
            assert!(file == text, "{} is out of date: cargo run -p schemas -- --write", path.display());
        }
    }
}
