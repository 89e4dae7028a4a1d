//! JSON of the client's own that is kept as values, such as schemas: bounded while it is read, for values take many times the bytes of
//! their text.

use super::fault::fault;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Values in one such JSON at most. Each takes some hundred bytes, whatever it is written with.
pub(crate) const MAX_VALUES: usize = 64 << 10;
/// Bytes of one such JSON at most.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// A JSON object, its keys in the client's order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bounded {
    pub object: Map<String, Value>,
    /// Values in it, at most.
    pub values: usize,
}

impl Bounded {
    /// The object that a text holds.
    ///
    /// # Errors
    /// What is wrong with the text, in words that follow its name.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let values = check(text)?;
        match serde_json::from_str(text) {
            Ok(object) => Ok(Self { object, values }),
            Err(error) => Err(fault(&error).unwrap_or_else(|| "is not a JSON object".into())),
        }
    }
}

impl<'de> Deserialize<'de> for Bounded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(<&'de RawValue>::deserialize(deserializer)?.get()).map_err(D::Error::custom)
    }
}

/// Values that a text of JSON holds at most, if those and its bytes are within the bounds.
///
/// # Errors
/// It is too long, or holds too many.
pub(crate) fn check(text: &str) -> Result<usize, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("has {} bytes; at most {MAX_BYTES} are taken", text.len()));
    }
    let values = values(text);
    if values > MAX_VALUES {
        return Err(format!("has more than {MAX_VALUES} values, which is the limit"));
    }
    Ok(values)
}

/// Values that a text of JSON holds at most: whatever ends or begins one counts, outside of strings.
fn values(text: &str) -> usize {
    let (mut values, mut quoted, mut escaped) = (1, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b':' | b'[' | b'{' if !quoted => values += 1,
            _ => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings() {
        for (text, most) in [("{}", 2), (r#"{"a,b:[{": "\",\\"}"#, 3), ("[1, 2, [3]]", 5), ("{\"a\": {\"b\": []}}", 6)]
        {
            assert_eq!(values(text), most, "{text}");
        }
    }

    #[test]
    fn what_takes_too_much_is_refused_before_it_is_read() {
        let list = |n: usize| format!("{{\"a\": [{}]}}", vec!["0"; n].join(","));
        assert!(Bounded::parse(&list(MAX_VALUES - 4)).is_ok());
        let error = Bounded::parse(&list(MAX_VALUES)).unwrap_err();
        assert_eq!(error, "has more than 65536 values, which is the limit");
        let long = format!("{{\"a\": \"{}\"}}", "x".repeat(MAX_BYTES));
        assert!(Bounded::parse(&long).unwrap_err().contains("bytes; at most"));
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(1000), "]".repeat(1000));
        assert_eq!(Bounded::parse(&deep).unwrap_err(), "nests lists and objects too deeply");
        for text in ["[]", "5", "null", "\"{}\""] {
            let error = Bounded::parse(text).unwrap_err();
            assert!(error.ends_with("it has to be an object"), "{error}");
        }
    }
}
