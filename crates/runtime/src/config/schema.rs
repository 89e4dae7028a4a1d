//! The configuration's JSON Schema, asked by dotted keys.

use super::Config;
use serde_json::Value;

/// Least likeness of two names of which one may be meant for the other, of 1 for equal ones.
const LIKE: f64 = 0.8;

/// The schema.
pub(super) struct Schema {
    root: Value,
}

impl Schema {
    pub(super) fn new() -> Self {
        Self { root: schemars::schema_for!(Config).to_value() }
    }

    /// Says what is wrong with a key whose section is known, if it is not; `None` too for a key below an unknown one. `holds` keys of its
    /// own: where a section has names of models among its keys, whatever does so is one.
    pub(super) fn unknown(&self, key: &str, holds: bool) -> Option<String> {
        let (section, name) = split(key);
        let node = self.at(section)?;
        let known = names(node);
        if known.contains(&name) || known.is_empty() || (holds && takes_names(node)) {
            return None;
        }
        let (has, there) = match section {
            "" => (format!("there is no section `{name}`"), "there are"),
            _ => (format!("{section} has no key `{name}`"), "it has"),
        };
        let of_models = match takes_names(node) {
            true => "; any other key is a model's name and has that model's settings: `NAME: {sampling_defaults: {…}}`",
            false => "",
        };
        let elsewhere = || self.all().into_iter().find(|(path, _)| split(path).1 == name).map(|(path, _)| path);
        Some(match nearest(name, known.iter().copied()).map(str::to_owned).or_else(elsewhere) {
            Some(meant) => format!("{has}; did you mean `{meant}`?"),
            None => format!("{has}; {there} {}{of_models}", known.join(", ")),
        })
    }

    /// Says what values a key takes.
    pub(super) fn wanted(&self, key: &str) -> Option<String> {
        Some(format!("`{key}` takes {}", self.kind(self.at(key)?)))
    }

    /// True if a value is of a type that the key takes. An item of a list has the list's key and its index in brackets.
    pub(super) fn is_kind(&self, key: &str, value: &Value) -> bool {
        let (list, item) = key.split_once('[').map_or((key, false), |(list, _)| (list, true));
        let Some(mut node) = self.at(list) else { return false };
        if item {
            node = self.resolve(&node["items"]);
        }
        let takes = |kind: &str| match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "boolean" => value.is_boolean(),
            "string" => value.is_string(),
            "null" => value.is_null(),
            "integer" => value.is_i64() || value.is_u64(),
            _ => value.is_number(),
        };
        match &node["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(takes),
            Value::String(kind) => takes(kind),
            // A choice of words.
            _ => value.is_string(),
        }
    }

    /// Least and largest value of a number's key. A model's name in it may have dots and no quotes.
    pub(super) fn range(&self, key: &str) -> Option<(f64, f64)> {
        let unquoted = || key.strip_prefix("models.").and_then(|rest| rest.split_once(".sampling_defaults."));
        let of_model = || self.at(&format!("models.NAME.sampling_defaults.{}", unquoted()?.1));
        let node = self.at(key).or_else(of_model)?;
        Some((node["minimum"].as_f64()?, node["maximum"].as_f64()?))
    }

    /// Resolves a reference.
    fn resolve<'a>(&'a self, node: &'a Value) -> &'a Value {
        let referred = node["$ref"].as_str().and_then(|path| self.root.pointer(path.trim_start_matches('#')));
        referred.unwrap_or(node)
    }

    /// The schema of a key; of the whole for the empty one.
    fn at(&self, key: &str) -> Option<&Value> {
        steps(key).into_iter().try_fold(&self.root, |node, name| {
            let found = node["properties"]
                .get(name)
                .or_else(|| Some(&node["additionalProperties"]).filter(|_| takes_names(node)));
            found.map(|node| self.resolve(node))
        })
    }

    /// Every key with its schema.
    fn all(&self) -> Vec<(String, &Value)> {
        fn walk<'a>(schema: &'a Schema, prefix: &str, node: &'a Value, found: &mut Vec<(String, &'a Value)>) {
            for (name, node) in node["properties"].as_object().into_iter().flatten() {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                let node = schema.resolve(node);
                found.push((key.clone(), node));
                walk(schema, &key, node, found);
            }
        }
        let mut found = Vec::new();
        walk(self, "", &self.root, &mut found);
        found
    }

    /// Values that a schema allows, in words.
    fn kind(&self, node: &Value) -> String {
        let mut types: Vec<&str> = match &node["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let or_null = if types.contains(&"null") { " or null" } else { "" };
        types.retain(|kind| *kind != "null");
        let words = match types.first() {
            Some(&"object") => format!("keys of its own: {}", names(node).join(", ")),
            Some(&"array") => format!("a list, [a, b]; each is {}", self.kind(self.resolve(&node["items"]))),
            Some(&"boolean") => "true or false".to_owned(),
            Some(&"string") => "text".to_owned(),
            Some(&"number") => match (node["minimum"].as_f64(), node["maximum"].as_f64()) {
                (Some(min), Some(max)) => format!("a number from {min} to {max}"),
                _ => "a number".to_owned(),
            },
            Some(_) => match (&node["minimum"], &node["maximum"]) {
                (Value::Null, _) | (_, Value::Null) => "a whole number".to_owned(),
                (min, max) => format!("a whole number from {min} to {max}"),
            },
            None => {
                let choices = node["oneOf"].as_array().into_iter().flatten();
                let choices: Vec<&str> = choices.filter_map(|choice| choice["const"].as_str()).collect();
                format!("one of {}", choices.join(", "))
            }
        };
        words + or_null
    }
}

/// The name that is most like a misspelled one, if any is like it.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let like = known.into_iter().map(|other| (strsim::jaro_winkler(name, other), other));
    like.filter(|(likeness, _)| *likeness >= LIKE).max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, other)| other)
}

/// Calls `f` with every leaf of a JSON tree and its dotted key.
pub fn leaves(tree: &Value, f: &mut impl FnMut(&str, &Value)) {
    fn walk(prefix: &str, value: &Value, f: &mut impl FnMut(&str, &Value)) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    walk(&join(prefix, key), value, f);
                }
            }
            leaf => f(prefix, leaf),
        }
    }
    walk("", tree, f);
}

/// A key's dotted path below a section. A name that has dots itself, as models have, stands in quotes.
pub(super) fn join(section: &str, name: &str) -> String {
    let dot = if section.is_empty() { "" } else { "." };
    let quote = if name.contains('.') { "\"" } else { "" };
    format!("{section}{dot}{quote}{name}{quote}")
}

/// The names in a dotted key.
pub(super) fn steps(key: &str) -> Vec<&str> {
    let mut quoted = false;
    let dot = |c: char| {
        quoted ^= c == '"';
        c == '.' && !quoted
    };
    key.split(dot).map(|name| name.trim_matches('"')).filter(|name| !name.is_empty()).collect()
}

/// A key's section, and its own name.
pub(super) fn split(key: &str) -> (&str, &str) {
    let name = steps(key).pop().unwrap_or_default();
    let own = key.trim_end_matches('"').len() - name.len();
    (key[..own].trim_end_matches(['"', '.']), name)
}

/// Names of models are among a section's keys.
fn takes_names(section: &Value) -> bool {
    section["additionalProperties"].is_object()
}

/// Names of the keys of a section.
fn names(section: &Value) -> Vec<&str> {
    section["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}
