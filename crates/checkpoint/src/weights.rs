//! The files of a folder that hold a model's weights.

use crate::{CheckpointError, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

/// Files of weights in a folder.
///
/// These are the files that the index names, if all of them are there. An index of which none is there belongs to another build, and one
/// that cannot be read to none: then it is `model.safetensors`, or else every `model*.safetensors`, as mlx-lm has it. Numbered shards
/// (`model-00001-of-00003.safetensors`) must all be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightFiles {
    /// Names of the files.
    pub names: Vec<String>,
    /// Other `model*.safetensors`, which may have further tensors, or be another build's.
    pub beside: Vec<String>,
    /// An index that is not followed, and why, as a sentence.
    pub warning: Option<String>,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Names in an error, at most.
const SHOWN: usize = 8;

impl WeightFiles {
    /// Finds the files; reads no more of them than the index.
    ///
    /// # Errors
    /// None are there, or not all that belong together; those that are missing are named.
    pub fn find(dir: &Path) -> Result<Self, CheckpointError> {
        let there = there(dir)?;
        // Files that an index names, or why none is followed, if there is one.
        let followed = match indexed(dir) {
            None => Err(None),
            Some(Err(why)) => Err(Some(why)),
            Some(Ok(names)) => {
                let (found, absent): (Vec<String>, Vec<String>) =
                    names.into_iter().partition(|name| is_plain(name) && dir.join(name).is_file());
                let whole = there.contains(SINGLE) && !found.iter().any(|name| name == SINGLE);
                match (&found[..], &absent[..]) {
                    ([], []) => Err(Some("names no files".to_owned())),
                    (_, []) => Ok(found),
                    ([_, ..], [_, ..]) if !whole => return Err(incomplete(dir, &absent, absent.len())),
                    _ => Err(Some(format!("names {}, not there", listed(&absent, absent.len())))),
                }
            }
        };
        let (names, warning) = match followed {
            Ok(names) => (names, None),
            Err(why) => {
                let names = unindexed(dir, &there, why.as_deref())?;
                let warning = why.map(|why| {
                    let index = dir.join(INDEX);
                    let names = listed(&names, names.len());
                    format!("{} {why}: it is not followed, and the weights are read from {names}", index.display())
                });
                (names, warning)
            }
        };
        let beside = there.into_iter().filter(|name| !names.contains(name)).collect();
        Ok(Self { names, beside, warning })
    }
}

/// Names of all `model*.safetensors` of a folder. A link that dangles counts as missing.
fn there(dir: &Path) -> Result<BTreeSet<String>, CheckpointError> {
    let read = |e| CheckpointError::read(dir, e);
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let Ok(name) = entry.map_err(read)?.file_name().into_string() else { continue };
        if name.starts_with("model") && name.ends_with(".safetensors") && dir.join(&name).is_file() {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Files that the index names; the reason, as a predicate, for which it names none. `None` if there is no index.
fn indexed(dir: &Path) -> Option<Result<BTreeSet<String>, String>> {
    let index = match json::read_optional(&dir.join(INDEX)) {
        Ok(None) => return None,
        Ok(Some(index)) => index,
        Err(CheckpointError::Json { message, .. }) => return Some(Err(format!("cannot be read ({message})"))),
        Err(error) => return Some(Err(format!("cannot be read ({error})"))),
    };
    let files = index.get("weight_map").and_then(|map| map.as_object()?.values().map(|file| file.as_str()).collect());
    let files = files.map(|files: BTreeSet<&str>| files.into_iter().map(str::to_owned).collect());
    Some(files.ok_or_else(|| "has no weight_map from tensors to files".to_owned()))
}

/// True for a name in the folder itself: what a file names must not lead elsewhere.
pub(crate) fn is_plain(name: &str) -> bool {
    Path::new(name).components().eq([Component::Normal(name.as_ref())])
}

/// Files that hold the weights where no index tells; `why` there is none to follow.
fn unindexed(dir: &Path, there: &BTreeSet<String>, why: Option<&str>) -> Result<Vec<String>, CheckpointError> {
    if there.contains(SINGLE) {
        return Ok(vec![SINGLE.to_owned()]);
    }
    let mut sets: BTreeMap<(&str, &str), BTreeSet<u64>> = BTreeMap::new();
    for shard in there.iter().filter_map(|name| Shard::parse(name)) {
        sets.entry((shard.prefix, shard.total)).or_default().insert(shard.number);
    }
    let missing = |(&(prefix, total), numbers): (&(&str, &str), &BTreeSet<u64>)| missing(prefix, total, numbers);
    let whole: BTreeSet<&str> =
        sets.iter().filter(|set| missing(*set).1 == 0).map(|((prefix, _), _)| *prefix).collect();
    // Shards of another build may lie beside a whole set of the same name.
    let broken: BTreeMap<_, _> = sets.iter().filter(|set| missing(*set).1 > 0).collect();
    if let Some((names, count)) =
        broken.iter().find(|((prefix, _), _)| !whole.contains(prefix)).map(|(k, v)| missing((k, v)))
    {
        return Err(incomplete(dir, &names, count));
    }
    let of_broken = |name: &&String| Shard::parse(name).is_some_and(|s| broken.contains_key(&(s.prefix, s.total)));
    let names: Vec<String> = there.iter().filter(|name| !of_broken(name)).cloned().collect();
    match names.is_empty() {
        true => Err(CheckpointError::NoWeights {
            path: dir.to_owned(),
            index: why.map(|why| format!(" ({INDEX} {why})")).unwrap_or_default(),
        }),
        false => Ok(names),
    }
}

/// A name of the form `PREFIX-00001-of-00003.safetensors`.
struct Shard<'a> {
    prefix: &'a str,
    number: u64,
    /// As it is written.
    total: &'a str,
}

impl<'a> Shard<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let (first, total) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
        let (prefix, number) = first.rsplit_once('-')?;
        let digits = |text: &str| (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let parsed = digits(number) && digits(total);
        parsed.then(|| Some(Self { prefix, number: number.parse().ok()?, total })).flatten()
    }
}

/// Names of shards that are missing, the first few of them, and how many are. Shards are numbered from 1, by some from 0.
fn missing(prefix: &str, total: &str, numbers: &BTreeSet<u64>) -> (Vec<String>, usize) {
    let count: u64 = total.parse().unwrap_or(u64::MAX);
    let first = u64::from(!numbers.contains(&0));
    let all = first..first.saturating_add(count);
    let found = numbers.iter().filter(|number| all.contains(number)).count();
    let names = all.filter(|number| !numbers.contains(number)).take(SHOWN);
    let width = total.len();
    let names = names.map(|number| format!("{prefix}-{number:0width$}-of-{total}.safetensors"));
    (names.collect(), usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(found))
}

fn incomplete(dir: &Path, names: &[String], count: usize) -> CheckpointError {
    CheckpointError::Incomplete { path: dir.to_owned(), missing: listed(names, count) }
}

/// The first of `count` names, in words.
fn listed(names: &[String], count: usize) -> String {
    let shown = &names[..names.len().min(SHOWN)];
    match count - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
