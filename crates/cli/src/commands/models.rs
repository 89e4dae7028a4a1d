//! `pull`, `list`, `rm`: models in the hub's cache.

use crate::args::{List, ModelId as Argument};
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Pull;
use indicatif::BinaryBytes;
use mlx_serving_hub::{CachedModel, ModelId};
use mlx_serving_runtime::hub;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};

pub(crate) fn pull(_: &Context, args: &Argument) -> Result<(), Failure> {
    let id = ModelId::parse(&args.id).map_err(Failure::usage)?;
    let mut pull = Pull::new(&args.id);
    let path = hub()?.pull(&id, &mut |p| pull.set(p.file, p.done, p.total)).map_err(Failure::failed)?;
    drop(pull);
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
    let header = ["MODEL", "REVISION", "SIZE", "LAST USED", ""].map(str::to_owned);
    let width = |column: usize| rows.iter().chain([&header]).map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    for [id, revision, size, used, note] in [&header].into_iter().chain(&rows) {
        let [a, b, c, d] = widths;
        let line = format!("{id:a$}  {revision:b$}  {size:>c$}  {used:d$}  {note}");
        writeln!(out, "{}", line.trim_end()).map_err(Failure::output)?;
    }
    // Folders are longer than lines: programs get them by --json, people once.
    if std::io::stdout().is_terminal() {
        writeln!(out, "in {}", hub.cache().root().display()).map_err(Failure::output)?;
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
        "id": model.id.name(), "revision": model.revision, "refs": model.refs, "size": model.size, "path": model.path,
        "last_used": last_used(model), "complete": model.complete,
    })
}

fn as_row(model: &CachedModel) -> [String; 5] {
    let commit: String = model.revision.chars().take(8).collect();
    let revision = [&[commit], &model.refs[..]].concat().join(" ");
    let size = BinaryBytes(model.size).to_string();
    let used = last_used(model).and_then(|time| Some(time.split_once('T')?.0.to_owned())).unwrap_or_default();
    let note = if model.complete { "" } else { "incomplete: pull it again" };
    [model.id.to_string(), revision, size, used, note.to_owned()]
}

/// Time of the last use, in RFC 3339 and UTC.
fn last_used(model: &CachedModel) -> Option<String> {
    jiff::Timestamp::try_from(model.last_used?).ok()?.round(jiff::Unit::Second).ok().map(|time| time.to_string())
}
