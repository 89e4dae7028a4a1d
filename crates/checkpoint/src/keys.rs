use crate::CheckpointError;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;
use std::path::Path;

/// A JSON object with its place in a file, for errors. A key that is `null` counts as absent.
#[derive(Debug, Clone)]
pub(crate) struct Keys<'a> {
    pub map: &'a Map<String, Value>,
    /// Prefix of a key's name, such as `rope_scaling.`.
    pub prefix: String,
    pub path: &'a Path,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>, path: &'a Path) -> Self {
        Self { map, prefix: String::new(), path }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    pub(crate) fn bad(&self, key: &str, expected: impl Into<String>) -> CheckpointError {
        let found = self.get(key).map_or("missing".to_owned(), Value::to_string);
        let found: String = found.chars().take(80).collect();
        CheckpointError::config(self.path, &format!("{}{key}", self.prefix), found, expected)
    }

    pub(crate) fn optional_size(&self, key: &str, max: u64) -> Result<Option<usize>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(n) if (1..=max).contains(&n) => Ok(Some(n as usize)),
                _ => Err(self.bad(key, format!("a whole number from 1 to {max}"))),
            },
        }
    }

    pub(crate) fn size(&self, key: &str, max: u64) -> Result<usize, CheckpointError> {
        self.optional_size(key, max)?.ok_or_else(|| self.bad(key, format!("a whole number from 1 to {max}")))
    }

    /// A number of a range that holds every value that models have.
    pub(crate) fn optional_number(
        &self,
        key: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(n) if range.contains(&n) => Ok(Some(n)),
                _ => Err(self.bad(key, format!("a number from {} to {}", plain(*range.start()), plain(*range.end())))),
            },
        }
    }

    /// As [`Self::optional_number`], of a key that must be there unless it has a default.
    pub(crate) fn number(
        &self,
        key: &str,
        default: Option<f64>,
        range: RangeInclusive<f64>,
    ) -> Result<f64, CheckpointError> {
        match self.optional_number(key, range.clone())?.or(default) {
            Some(n) => Ok(n),
            None => Err(self.bad(key, format!("a number from {} to {}", plain(*range.start()), plain(*range.end())))),
        }
    }

    pub(crate) fn optional_flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(self.bad(key, "true or false")),
        }
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, CheckpointError> {
        Ok(self.optional_flag(key)?.unwrap_or(default))
    }

    /// The object under a key.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Keys<'a>>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Keys { map, prefix: format!("{}{key}.", self.prefix), path: self.path }))
            }
            Some(_) => Err(self.bad(key, "an object")),
        }
    }

    /// Token ids given as one or as a list, all of them of the vocabulary.
    pub(crate) fn token_ids(&self, key: &str, vocab: usize) -> Result<Option<Vec<u32>>, CheckpointError> {
        let token = |value: &Value| value.as_u64().filter(|&id| id < vocab as u64).map(|id| id as u32);
        let ids = match self.get(key) {
            None => return Ok(None),
            Some(Value::Array(list)) => list.iter().map(token).collect(),
            Some(one) => token(one).map(|id| vec![id]),
        };
        let expected = || format!("a token of the vocabulary, from 0 to {}, or a list of such", vocab - 1);
        ids.map(Some).ok_or_else(|| self.bad(key, expected()))
    }
}

/// A bound as people write it.
fn plain(n: f64) -> String {
    if n == 0.0 || (1e-3..1e6).contains(&n) { n.to_string() } else { format!("{n:e}") }
}
