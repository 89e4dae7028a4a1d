//! `pull`, `list`, `rm`: models in the hub's cache.

use super::Context;
use crate::args::{List, ModelId as Argument};
use crate::caches;
use crate::failure::Failure;
use crate::progress::Bar;
use indicatif::BinaryBytes;
use mlx_serving_hub::{CachedModel, Hub, HubError, ModelId, Options, Progress};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

const ENDPOINT: &str = "https://huggingface.co";

/// The folder of a model of the hub, if all of it is in the cache. Nothing is downloaded.
pub(crate) fn cached(id: &str) -> Result<Option<PathBuf>, Failure> {
    let id = ModelId::parse(id).map_err(Failure::failed)?;
    hub()?.cache().snapshot(&id).map_err(Failure::failed)
}

/// The folder of a model of the hub, pulled first if it is not cached.
pub(crate) fn resolve(id: &str) -> Result<PathBuf, Failure> {
    let id = ModelId::parse(id).map_err(Failure::failed)?;
    with_progress(&id, |hub, progress| hub.resolve(&id, progress))
}

pub(crate) fn pull(_: &Context, args: &Argument) -> Result<(), Failure> {
    let id = ModelId::parse(&args.id).map_err(Failure::usage)?;
    let path = with_progress(&id, |hub, progress| hub.pull(&id, progress))?;
    writeln!(anstream::stdout(), "{}", path.display()).map_err(Failure::output)
}

pub(crate) fn list(_: &Context, args: &List) -> Result<(), Failure> {
    let hub = hub()?;
    let models = hub.cache().list().map_err(Failure::failed)?;
    let mut out = anstream::stdout();
    if args.json {
        let models: Vec<Value> = models.iter().map(as_json).collect();
        return writeln!(out, "{}", serde_json::to_string_pretty(&models).map_err(Failure::failed)?)
            .map_err(Failure::output);
    }
    if models.is_empty() {
        let cache = hub.cache().root().display();
        let hint = format!("{cache} holds no models; mlx-serving pull ID downloads one");
        return writeln!(anstream::stderr(), "{hint}").map_err(Failure::output);
    }
    let rows: Vec<[String; 5]> = models.iter().map(as_row).collect();
    let header = ["MODEL", "REVISION", "SIZE", "LAST USED", "PATH"].map(str::to_owned);
    let width = |column: usize| rows.iter().chain([&header]).map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    for [id, revision, size, used, path] in [&header].into_iter().chain(&rows) {
        let [a, b, c, d] = widths;
        writeln!(out, "{id:a$}  {revision:b$}  {size:>c$}  {used:d$}  {path}").map_err(Failure::output)?;
    }
    Ok(())
}

pub(crate) fn remove(_: &Context, args: &Argument) -> Result<(), Failure> {
    let id = ModelId::parse(&args.id).map_err(Failure::usage)?;
    let freed = hub()?.cache().remove(&id).map_err(Failure::failed)?;
    writeln!(anstream::stdout(), "removed {id}: {} are free again", BinaryBytes(freed)).map_err(Failure::output)
}

fn as_json(model: &CachedModel) -> Value {
    json!({
        "id": model.id.as_str(), "revision": model.revision, "size": model.size, "path": model.path,
        "last_used": last_used(model), "complete": model.complete,
    })
}

fn as_row(model: &CachedModel) -> [String; 5] {
    let revision: String = model.revision.chars().take(8).collect();
    let size = BinaryBytes(model.size).to_string();
    let used = last_used(model).and_then(|time| Some(time.split_once('T')?.0.to_owned())).unwrap_or_default();
    let note = if model.complete { "" } else { "  (incomplete: pull it again)" };
    [model.id.to_string(), revision, size, used, format!("{}{note}", model.path.display())]
}

/// When, in RFC 3339 and UTC.
fn last_used(model: &CachedModel) -> Option<String> {
    jiff::Timestamp::try_from(model.last_used?).ok()?.round(jiff::Unit::Second).ok().map(|time| time.to_string())
}

/// Runs a download with a bar on a terminal, and a line for each file elsewhere.
fn with_progress(
    id: &ModelId,
    run: impl FnOnce(&Hub, &mut dyn FnMut(Progress)) -> Result<PathBuf, HubError>,
) -> Result<PathBuf, Failure> {
    let hub = hub()?;
    let bar = Bar::bytes(&format!("pulling {id}"));
    let terminal = std::io::stderr().is_terminal();
    let mut announced = String::new();
    let result = run(&hub, &mut |p| {
        bar.set(p.done, p.total);
        if !terminal && announced != p.file {
            p.file.clone_into(&mut announced);
            let line = format!("pulling {id}: {}, {} of {}", p.file, BinaryBytes(p.done), BinaryBytes(p.total));
            // If standard error is closed, nobody wants to know.
            let _ = writeln!(anstream::stderr(), "{line}");
        }
    });
    bar.finish();
    result.map_err(Failure::failed)
}

fn hub() -> Result<Hub, Failure> {
    let options = options(|name| std::env::var(name).ok().filter(|value| !value.is_empty()), std::env::home_dir())?;
    Ok(Hub::new(options))
}

/// The variables that mean the same to every program of the Hugging Face ecosystem.
fn options(variable: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Result<Options, Failure> {
    let folder = |name: &str| variable(name).map(PathBuf::from);
    let caches = caches::folder(folder, home);
    let hf_home = folder("HF_HOME").or_else(|| caches.map(|caches| caches.join("huggingface")));
    let cache = folder("HF_HUB_CACHE").or_else(|| hf_home.as_ref().map(|home| home.join("hub"))).ok_or_else(|| {
        Failure::failed("this user has no home folder: set HF_HUB_CACHE to a folder for downloaded models")
    })?;
    // Written by `hf auth login`. That it is not there is the rule.
    let token_file = folder("HF_TOKEN_PATH").or_else(|| hf_home.map(|home| home.join("token")));
    let stored = || token_file.and_then(|path| std::fs::read_to_string(path).ok());
    let token = variable("HF_TOKEN").or_else(stored).map(|token| token.trim().to_owned()).filter(|t| !t.is_empty());
    let yes = |value: String| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE");
    Ok(Options {
        cache,
        endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()),
        token,
        offline: variable("HF_HUB_OFFLINE").is_some_and(yes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Options {
        let find = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        options(find, Some("/home/me".into())).unwrap()
    }

    #[test]
    fn the_cache_is_where_other_programs_have_it() {
        for (pairs, cache) in [
            (&[][..], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub"),
            (&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")], "/c"),
        ] {
            assert_eq!(with(pairs).cache, PathBuf::from(cache));
        }
        assert!(options(|_| None, None).is_err());
    }

    #[test]
    fn token_endpoint_and_offline_come_from_their_variables() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(with(&[("HF_HOME", home)]).token, None);
        std::fs::write(dir.path().join("token"), "stored\n").unwrap();
        assert_eq!(with(&[("HF_HOME", home)]).token.as_deref(), Some("stored"));
        assert_eq!(with(&[("HF_HOME", home), ("HF_TOKEN", "given")]).token.as_deref(), Some("given"));
        assert_eq!(with(&[]).endpoint, ENDPOINT);
        assert_eq!(with(&[("HF_ENDPOINT", "http://mirror")]).endpoint, "http://mirror");
        for (value, offline) in [("1", true), ("true", true), ("YES", true), ("0", false), ("no", false)] {
            assert_eq!(with(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }
}
