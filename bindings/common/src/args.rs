//! Arguments of a call, by name. Null asks for nothing, everything else is of the right type, in range, or refused by name.

use crate::error::Error;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// Least likeness of two names of which one may be meant for the other, of 1 for equal ones.
const LIKE: f64 = 0.8;

/// Arguments that have not been read yet.
#[derive(Debug)]
pub(crate) struct Args<'a> {
    given: &'a Map<String, Value>,
    /// Names that were asked for: those that the call takes.
    known: Vec<&'static str>,
}

/// No arguments at all.
static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl<'a> Args<'a> {
    /// The members of an object.
    pub(crate) fn of(value: &'a Value) -> Result<Self, Error> {
        let given = match value {
            Value::Null => &*NONE,
            Value::Object(map) => map,
            other => return Err(Error::wrong_type("arguments", format!("arguments are an object, not {other}"))),
        };
        Ok(Self { given, known: Vec::new() })
    }

    /// The value of an argument, if it asks for something.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.given.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Result<Option<&'a str>, Error> {
        self.take(name).map(|value| value.as_str().ok_or_else(|| mistyped(name, "text", value))).transpose()
    }

    pub(crate) fn flag(&mut self, name: &'static str) -> Result<Option<bool>, Error> {
        self.take(name).map(|value| value.as_bool().ok_or_else(|| mistyped(name, "true or false", value))).transpose()
    }

    /// A whole number.
    pub(crate) fn whole(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>, Error> {
        self.take(name).map(|value| whole(name, value, range)).transpose()
    }

    /// A number; its range is the engine's to check.
    pub(crate) fn number(&mut self, name: &'static str) -> Result<Option<f32>, Error> {
        let read = |value: &Value| value.as_f64().map(|n| n as f32).ok_or_else(|| mistyped(name, "a number", value));
        self.take(name).map(read).transpose()
    }

    /// A text, or a list of texts.
    pub(crate) fn texts(&mut self, name: &'static str) -> Result<Vec<String>, Error> {
        let wanted = "text or a list of texts";
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text.clone()]),
            Some(Value::Array(list)) => {
                let text = |item: &Value| item.as_str().map(str::to_owned).ok_or_else(|| mistyped(name, wanted, item));
                list.iter().map(text).collect()
            }
            Some(other) => Err(mistyped(name, wanted, other)),
        }
    }

    /// Refuses arguments that the call does not take.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let Some((name, _)) = self.given.iter().find(|(name, _)| !self.known.contains(&name.as_str())) else {
            return Ok(());
        };
        let like = self.known.iter().map(|known| (strsim::jaro_winkler(name, known), known));
        let nearest = like.filter(|(likeness, _)| *likeness >= LIKE).max_by(|(a, _), (b, _)| a.total_cmp(b));
        Err(Error::value(
            name,
            match nearest {
                Some((_, known)) => format!("there is no argument `{name}`; did you mean `{known}`?"),
                None => format!("there is no argument `{name}`; there are {}", self.known.join(", ")),
            },
        ))
    }
}

/// An argument of the wrong type.
pub(crate) fn mistyped(name: &str, wanted: &str, given: &Value) -> Error {
    Error::wrong_type(name, format!("`{name}` takes {wanted}; it is {}", brief(given)))
}

/// A whole number within a range. One with a fraction of zero is whole: JSON does not tell them apart.
pub(crate) fn whole(name: &str, value: &Value, range: RangeInclusive<u64>) -> Result<u64, Error> {
    let (low, high) = range.clone().into_inner();
    let wanted = match high {
        u64::MAX if low == 0 => "a whole number, not negative".to_owned(),
        u64::MAX => format!("a whole number of at least {low}"),
        high => format!("a whole number from {low} to {high}"),
    };
    let number = value.as_u64().or_else(|| {
        let float = value.as_f64().filter(|float| float.fract() == 0.0 && *float >= 0.0 && *float < 2f64.powi(53));
        float.map(|float| float as u64)
    });
    match number {
        Some(number) if range.contains(&number) => Ok(number),
        _ if value.is_number() => Err(Error::value(name, format!("`{name}` takes {wanted}; it is {value}"))),
        _ => Err(mistyped(name, &wanted, value)),
    }
}

/// A value, cut short for a message.
fn brief(value: &Value) -> String {
    const LONGEST: usize = 60;
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => {
            let text = other.to_string();
            let cut: String = text.chars().take(LONGEST).collect();
            if cut.len() < text.len() { format!("{cut}…") } else { text }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_arguments_are_refused_with_the_one_that_was_meant() {
        let value = json!({ "max_token": 3 });
        let mut args = Args::of(&value).unwrap();
        args.whole("max_tokens", 1..=u64::MAX).unwrap();
        let error = args.finish().unwrap_err();
        assert_eq!(error.param.as_deref(), Some("max_token"));
        assert!(error.message.contains("did you mean `max_tokens`"), "{error}");
    }

    #[test]
    fn null_asks_for_nothing_and_other_types_are_refused_by_name() {
        let value = json!({ "a": null, "b": "x", "c": true, "d": [1], "e": 1.5, "f": 2.0, "g": -1 });
        let mut args = Args::of(&value).unwrap();
        assert_eq!(args.text("a"), Ok(None));
        assert!(args.whole("b", 0..=9).unwrap_err().wrong_type);
        assert!(args.number("c").unwrap_err().wrong_type, "a flag is no number");
        assert!(args.texts("d").unwrap_err().wrong_type);
        assert!(!args.whole("e", 0..=9).unwrap_err().wrong_type);
        assert_eq!(args.whole("f", 0..=9), Ok(Some(2)));
        let error = args.whole("g", 0..=9).unwrap_err();
        assert_eq!(
            (error.param.as_deref(), error.message.as_str()),
            (Some("g"), "`g` takes a whole number from 0 to 9; it is -1")
        );
        args.finish().unwrap();
    }
}
