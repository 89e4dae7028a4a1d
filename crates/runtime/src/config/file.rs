//! A configuration file: its values, the keys that it sets, and what is wrong with it, in sentences with their places.

use super::Config;
use super::schema::{Schema, join, split};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Error, Spanned};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Bytes that a file may have.
const MAX_BYTES: u64 = 1 << 20;

/// A file that is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not there or cannot be read.
    #[error("configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Syntax, unknown keys, wrong type or values out of range, with their places.
    #[error("configuration {path}: {message}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Line, key, value and range.
        message: String,
    },
}

/// Content of a configuration file.
#[derive(Debug, Clone)]
pub struct File {
    /// The values that it sets, the defaults for the rest.
    pub config: Config,
    /// Dotted keys that it sets.
    pub keys: Vec<String>,
}

impl File {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unread = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        // It may be a pipe or a device, which have no length.
        fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(unread)?;
        if bytes.len() as u64 > MAX_BYTES {
            let message = format!("it has more than {} MiB, so it is not a configuration", MAX_BYTES >> 20);
            return Err(ConfigError::Content { path: path.to_owned(), message });
        }
        let text =
            String::from_utf8(bytes).map_err(|error| unread(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        Self::parse(&text, path)
    }

    /// Parses and validates a file's text; errors name `path`.
    ///
    /// # Errors
    /// [`ConfigError::Content`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let content = |message: String| ConfigError::Content { path: path.to_owned(), message };
        // An empty document is an empty mapping.
        let has_content = text.lines().any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'));
        if !has_content {
            return Ok(Self { config: Config::default(), keys: Vec::new() });
        }
        let schema = Schema::new();
        let tree: Node = serde_saphyr::from_str(text).map_err(|e| content(shown(&e, path, None)))?;
        let mut keys = Vec::new();
        tree.keys("", &mut keys);
        let unknown: Vec<String> = keys
            .iter()
            .filter_map(|key| key.dotted().or_else(|| schema.unknown(&key.path, !key.leaf)).map(|why| key.at(&why)))
            .collect();
        match &unknown[..] {
            [] => {}
            [one] => return Err(content(one.clone())),
            several => return Err(content(format!("{} unknown keys\n  {}", several.len(), several.join("\n  ")))),
        }
        let config: Config = serde_saphyr::from_str_valid(text).map_err(|e| {
            let wanted = holder(&keys, &e).and_then(|key| {
                let (list, given) = (schema.is_kind(&key.path, &Value::Array(Vec::new())), scalar(text, key.value));
                let hint = given.filter(|_| list && key.leaf).map(|given| format!("; write [{given}]"));
                Some(schema.wanted(&key.path)? + &hint.unwrap_or_default())
            });
            content(shown(&e, path, wanted))
        })?;
        config.check_across().map_err(content)?;
        let keys = keys.into_iter().filter(|key| key.leaf).map(|key| key.path).collect();
        Ok(Self { config, keys })
    }
}

/// A key of the file.
struct Key {
    /// Dotted, from the root.
    path: String,
    /// Its own, as the file has it.
    name: String,
    line: u64,
    /// Line and column of its value.
    value: (u64, u64),
    /// It has a value and no keys below.
    leaf: bool,
}

impl Key {
    /// A message about it.
    fn at(&self, message: &str) -> String {
        format!("line {}: {message}", self.line)
    }

    /// Says how a key is written that the file has with dots, as messages have it.
    fn dotted(&self) -> Option<String> {
        let (outer, last) = self.name.rsplit_once('.')?;
        // Models have such names.
        if !self.leaf && split(&self.path).0 == "models" {
            return None;
        }
        let (open, close) = (outer.replace('.', ": {"), "}".repeat(outer.split('.').count()));
        Some(format!("`{}`: keys are nested, without dots: `{open}: {{{last}: …{close}`", self.name))
    }
}

/// A value, of which only the keys matter here.
enum Node {
    Section(Vec<(Spanned<String>, Spanned<Node>)>),
    Value,
}

impl Node {
    /// All keys below, those of a section after its own.
    fn keys(&self, prefix: &str, found: &mut Vec<Key>) {
        let Node::Section(entries) = self else { return };
        for (name, node) in entries {
            let path = join(prefix, &name.value);
            let place = node.referenced;
            found.push(Key {
                path: path.clone(),
                name: name.value.clone(),
                line: name.referenced.line(),
                value: (place.line(), place.column()),
                leaf: matches!(node.value, Node::Value),
            });
            node.value.keys(&path, found);
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Keys)
    }
}

/// Reads a [`Node`].
struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Section(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::Value)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Value)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Value)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Value)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Value)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Value)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Value)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Value)
    }
}

/// The text of a scalar at this line and column, if one that stands on one line is there.
fn scalar(text: &str, (line, column): (u64, u64)) -> Option<&str> {
    let line = text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let (start, first) = line.char_indices().nth(usize::try_from(column).ok()?.checked_sub(1)?)?;
    let rest = &line[start..];
    let end = match first {
        '[' | '{' | '-' | '*' | '&' | '|' | '>' => return None,
        '"' | '\'' => rest[1..].find(first)? + 2,
        _ => rest.find([',', '}', ']', '#']).unwrap_or(rest.len()),
    };
    Some(rest[..end].trim_end()).filter(|given| !given.is_empty())
}

/// The key in whose value an error is: the last one whose value begins before it.
fn holder<'a>(keys: &'a [Key], error: &Error) -> Option<&'a Key> {
    let place = error.location()?;
    keys.iter().filter(|key| key.value <= (place.line(), place.column())).max_by_key(|key| key.value)
}

/// An error with the file's name at the lines that it quotes; of a value of the wrong type, what is `wanted` in its place.
fn shown(error: &Error, path: &Path, wanted: Option<String>) -> String {
    let text = error.to_string().replace("<input>", &path.display().to_string()).replace("\nerror: ", "\n");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let fault = text.lines().next().and_then(|line| line.split_once(": ")).map(|(_, fault)| fault.to_owned());
    let wanted = fault.as_deref().and_then(structural).map(str::to_owned).or(wanted);
    match (wanted, fault) {
        (Some(wanted), Some(fault)) if !fault.starts_with("validation error") => text.replace(&fault, &wanted),
        _ => plain(text),
    }
}

/// A sentence for a fault of the document as a whole, of which the parser tells programmers.
fn structural(fault: &str) -> Option<&'static str> {
    const FAULTS: [(&str, &str); 7] = [
        ("multiple YAML documents", "a second document begins here (`---`), and a configuration is one"),
        ("recursive references", "an alias (`*name`) stands for what it is in"),
        ("alias ", "its aliases (`*name`) stand for too much, or for nothing"),
        ("recursion limit", "it is nested deeper than any key is"),
        ("budget breached: Depth", "it is nested deeper than any key is"),
        ("budget breached: Alias", "it has more aliases (`*name`) than a configuration needs"),
        ("budget breached", "it has more in it than all keys together"),
    ];
    FAULTS.iter().find(|(begins, _)| fault.starts_with(begins)).map(|(_, sentence)| *sentence)
}

/// A validation's or a parser's message in this file's words: ranges with both ends, and no advice for programmers.
pub(super) fn plain(message: &str) -> String {
    let mut message = message.replace(".`", "`").replace(".: ", ": ").replace("validation error: ", "");
    message = message.replace(", set DuplicateKeyPolicy in Options if acceptable", " is given twice");
    message =
        message.replace("cannot deserialize null into string; use Option<String>", "it takes text, and this is null");
    message = message.replace("duplicate mapping key: ", "key ").replace("duplicate mapping key", "a key");
    let schema = message.contains(" than ").then(Schema::new);
    let quoted = message.split('`').skip(1).step_by(2);
    let first = message.lines().filter_map(|line| line.split_once(": ")).map(|(key, _)| key);
    let keys: BTreeSet<String> = quoted.chain(first).map(str::to_owned).collect();
    for (key, (min, max)) in keys.iter().filter_map(|key| Some((key, schema.as_ref()?.range(key)?))) {
        let range = format!("must be {min} to {max}");
        for bound in [format!("lower than {min}"), format!("greater than {max}")] {
            message = message.replace(&format!("{bound} for `{key}`"), &format!("`{key}` {range}"));
            // A report without places.
            message = message.replace(&format!("{key}: {bound}"), &format!("{key}: {range}"));
        }
    }
    message.lines().map(key_first).collect::<Vec<_>>().join("\n")
}

/// A line of a validation's message that ends with the key, with the key before what is said of it.
fn key_first(line: &str) -> String {
    let moved = || {
        let (rest, key) = line.strip_suffix('`')?.rsplit_once(" for `")?;
        let start = if rest.starts_with("line ") { ": " } else { "^ " };
        let (place, said) = rest.split_once(start)?;
        Some(format!("{place}{start}`{key}`: {said}"))
    };
    moved().unwrap_or_else(|| line.to_owned())
}
