use crate::CheckpointError;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;
use std::path::Path;

/// Typed access to a JSON object of a configuration, with its place in the file, for errors. A key that is `null` counts as absent.
#[derive(Debug, Clone)]
pub struct Keys<'a> {
    map: &'a Map<String, Value>,
    /// Prefix of a key's name, such as `rope_scaling.`.
    prefix: String,
    path: &'a Path,
}

/// Content of an object: values, objects, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nesting {
    /// No value is an object.
    Flat,
    /// Every value is an object.
    Nested,
    /// Some values are objects, others are not.
    Mixed,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>, path: &'a Path) -> Self {
        Self { map, prefix: String::new(), path }
    }

    /// An object that is entry `i` of a file's list.
    pub(crate) fn entry(i: usize, map: &'a Map<String, Value>, path: &'a Path) -> Self {
        Self { map, prefix: format!("[{i}]."), path }
    }

    pub(crate) fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// True if the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// True if the key is there and says null.
    pub fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// Keys that are there.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
    }

    /// Content of this object.
    pub fn nesting(&self) -> Nesting {
        let objects = self.map.values().filter(|value| value.is_object()).count();
        match objects {
            0 => Nesting::Flat,
            _ if objects == self.names().count() => Nesting::Nested,
            _ => Nesting::Mixed,
        }
    }

    /// Refusal of a key's value, with the values that are accepted.
    pub fn bad(&self, key: &str, expected: impl Into<String>) -> CheckpointError {
        let found = self.get(key).map_or("missing".to_owned(), Value::to_string);
        self.refusal(key, found.chars().take(80).collect::<String>(), expected)
    }

    /// Refusal of a value that follows from other keys, with the values that are accepted.
    pub fn refusal(&self, key: &str, found: impl ToString, expected: impl Into<String>) -> CheckpointError {
        CheckpointError::config(self.path, &format!("{}{key}", self.prefix), found, expected)
    }

    /// A word.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.bad(key, "a text")),
        }
    }

    /// A word of those `known`.
    pub fn choice(&self, key: &str, known: &[&'static str]) -> Result<Option<&'static str>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => chosen(value, known).map(Some).ok_or_else(|| self.bad(key, alternatives(known))),
        }
    }

    /// A list of so many of `known`.
    pub fn choices(
        &self,
        key: &str,
        count: usize,
        known: &[&'static str],
    ) -> Result<Option<Vec<&'static str>>, CheckpointError> {
        self.list(key, count, &alternatives(known), |value| chosen(value, known))
    }

    /// A list of so many of true and false, or of 1 and 0.
    pub fn flags(&self, key: &str, count: usize) -> Result<Option<Vec<bool>>, CheckpointError> {
        self.list(key, count, "true (1) or false (0)", |value| match value.as_u64() {
            Some(number @ (0 | 1)) => Some(number == 1),
            _ => value.as_bool(),
        })
    }

    /// A list of any length of whole numbers below `end`.
    pub fn indices(&self, key: &str, end: usize) -> Result<Vec<usize>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let index = |value: &Value| value.as_u64().map(|n| n as usize).filter(|n| *n < end);
        let items = value.as_array().and_then(|list| list.iter().map(index).collect());
        items.ok_or_else(|| self.bad(key, format!("a list of whole numbers from 0 to {}", end.saturating_sub(1))))
    }

    /// A list of so many numbers of a range.
    pub fn numbers(
        &self,
        key: &str,
        count: usize,
        range: RangeInclusive<f64>,
    ) -> Result<Option<Vec<f64>>, CheckpointError> {
        self.list(key, count, &numbers(&range), |value| value.as_f64().filter(|n| range.contains(n)))
    }

    fn list<T>(
        &self,
        key: &str,
        count: usize,
        expected: &str,
        item: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let items = value.as_array().filter(|list| list.len() == count);
        items
            .and_then(|list| list.iter().map(item).collect())
            .map(Some)
            .ok_or_else(|| self.bad(key, format!("a list of {count} values, each {expected}")))
    }

    /// A whole number of at least 1.
    pub fn optional_size(&self, key: &str, max: u64) -> Result<Option<usize>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(n) if (1..=max).contains(&n) => Ok(Some(n as usize)),
                _ => Err(self.bad(key, sizes(max))),
            },
        }
    }

    /// A whole number of at least 0.
    pub fn optional_count(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(n) => Ok(Some(usize::try_from(n).unwrap_or(usize::MAX))),
                None => Err(self.bad(key, "a whole number of at least 0")),
            },
        }
    }

    /// A whole number of at least 1, under a key that must be there.
    pub fn size(&self, key: &str, max: u64) -> Result<usize, CheckpointError> {
        self.optional_size(key, max)?.ok_or_else(|| self.bad(key, sizes(max)))
    }

    /// A number of a range that holds every value that models have.
    pub fn optional_number(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(n) if range.contains(&n) => Ok(Some(n)),
                _ => Err(self.bad(key, numbers(&range))),
            },
        }
    }

    /// A number of a range, under a key that must be there unless it has a default.
    pub fn number(&self, key: &str, default: Option<f64>, range: RangeInclusive<f64>) -> Result<f64, CheckpointError> {
        let expected = numbers(&range);
        self.optional_number(key, range)?.or(default).ok_or_else(|| self.bad(key, expected))
    }

    /// True or false.
    pub fn optional_flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(self.bad(key, "true or false")),
        }
    }

    /// True or false, under a key with a default.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, CheckpointError> {
        Ok(self.optional_flag(key)?.unwrap_or(default))
    }

    /// The object under a key.
    pub fn object(&self, key: &str) -> Result<Option<Keys<'a>>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Keys { map, prefix: format!("{}{key}.", self.prefix), path: self.path }))
            }
            Some(_) => Err(self.bad(key, "an object")),
        }
    }

    /// Refuses a key whose value asks for what is not implemented: any but `neutral` (true and false are 1 and 0), or any at all.
    pub fn refuse_unless(&self, key: &str, neutral: Option<f64>) -> Result<(), CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(()) };
        let number = value.as_bool().map(f64::from).or_else(|| value.as_f64());
        if number.is_some() && number == neutral {
            return Ok(());
        }
        let expected = neutral.map_or("no such key".to_owned(), |n| format!("{n}, or no such key"));
        Err(self.bad(key, format!("{expected}: what it asks for is not implemented")))
    }

    /// Token ids given as one or as a list. Whether the vocabulary has them is not looked at: real files name others.
    pub fn token_ids(&self, key: &str) -> Result<Option<Vec<u32>>, CheckpointError> {
        let token = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match self.get(key) {
            None => return Ok(None),
            Some(Value::Array(list)) => list.iter().map(token).collect(),
            Some(one) => token(one).map(|id| vec![id]),
        };
        ids.map(Some)
            .ok_or_else(|| self.bad(key, format!("a token's number, from 0 to {}, or a list of such", u32::MAX)))
    }
}

/// The one of `known` that a value is.
fn chosen(value: &Value, known: &[&'static str]) -> Option<&'static str> {
    known.iter().find(|name| value == **name).copied()
}

/// Words for the names that are taken.
fn alternatives(known: &[&str]) -> String {
    match known {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => known.concat(),
    }
}

/// Words for the sizes that are taken.
fn sizes(max: u64) -> String {
    format!("a whole number from 1 to {max}")
}

/// Words for the numbers that are taken.
fn numbers(range: &RangeInclusive<f64>) -> String {
    format!("a number from {} to {}", plain(*range.start()), plain(*range.end()))
}

/// A bound as people write it.
fn plain(n: f64) -> String {
    // Of a double this far, every digit is meant.
    if n == 0.0 || (1e-3..1e15).contains(&n.abs()) { n.to_string() } else { format!("{n:e}") }
}
