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
                _ => Err(self.bad(key, sizes(max))),
            },
        }
    }

    pub(crate) fn size(&self, key: &str, max: u64) -> Result<usize, CheckpointError> {
        self.optional_size(key, max)?.ok_or_else(|| self.bad(key, sizes(max)))
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
                _ => Err(self.bad(key, numbers(&range))),
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
        let expected = numbers(&range);
        self.optional_number(key, range)?.or(default).ok_or_else(|| self.bad(key, expected))
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

    /// Refuses a key whose value asks for what is not implemented: any but `neutral` (true and false are 1 and 0), or any at all.
    pub(crate) fn refuse_unless(&self, key: &str, neutral: Option<f64>) -> Result<(), CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(()) };
        let number = value.as_bool().map(f64::from).or_else(|| value.as_f64());
        if number.is_some() && number == neutral {
            return Ok(());
        }
        let expected = neutral.map_or("no such key".to_owned(), |n| format!("{n}, or no such key"));
        Err(self.bad(key, format!("{expected}: what it asks for is not implemented")))
    }

    /// Token ids given as one or as a list. Whether the vocabulary has them is not looked at: real files name others.
    pub(crate) fn token_ids(&self, key: &str) -> Result<Option<Vec<u32>>, CheckpointError> {
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
    if n == 0.0 || (1e-3..1e6).contains(&n) { n.to_string() } else { format!("{n:e}") }
}
