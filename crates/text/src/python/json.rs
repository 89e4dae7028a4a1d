//! `json.loads` and `json.dumps`.

use super::arguments::bind;
use super::numbers::number;
use crate::bounds::{BYTES_PER_FUEL, MAX_DEPTH};
use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Error, ErrorKind, State, Value};
use std::fmt::Write;

const MAX_INDENT: usize = 64;

/// Values as Python's `json.loads` makes them: order of keys kept, integers apart from floats.
pub(crate) fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => number
            .as_i64()
            .map(Value::from)
            .or_else(|| number.as_u64().map(Value::from))
            .or_else(|| number.as_f64().map(Value::from))
            .unwrap_or_default(),
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => from_list(items),
        serde_json::Value::Object(map) => from_map(map),
    }
}

pub(crate) fn from_list(items: &[serde_json::Value]) -> Value {
    items.iter().map(from_json).collect()
}

pub(crate) fn from_map(map: &serde_json::Map<String, serde_json::Value>) -> Value {
    Value::from_pairs(map.iter().map(|(key, value)| (key.as_str(), from_json(value))))
}

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(state: &State, value: &Value, options: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ensure_ascii, indent, separators, sort_keys] = bind("tojson", names, &options.into_values())?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) if text.len() <= MAX_INDENT => text.to_owned(),
            Some(_) => return Err(invalid(format!("tojson: indent is longer than {MAX_INDENT}"))),
            None => " ".repeat(spaces(&indent)?),
        }),
    };
    let (item, key) = match separators.filter(|pair| !pair.is_none()) {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some(pair) => (pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string()),
    };
    let is_set = |flag: Option<Value>| flag.is_some_and(|flag| flag.is_true());
    let (ensure_ascii, sort_keys) = (is_set(ensure_ascii), is_set(sort_keys));
    let mut dumper = Dumper { state, out: String::new(), charged: 0, indent, item, key, ensure_ascii, sort_keys };
    dumper.value(value, 0)?;
    Ok(Value::from_safe_string(dumper.out))
}

fn spaces(indent: &Value) -> Result<usize, Error> {
    let count = usize::try_from(indent.clone()).ok().filter(|&count| count <= MAX_INDENT);
    count.ok_or_else(|| invalid(format!("tojson: indent must be 0 to {MAX_INDENT}, found {indent}")))
}

struct Dumper<'a, 'template, 'env> {
    state: &'a State<'template, 'env>,
    out: String,
    /// Bytes of `out` that are paid for: values may share parts, so the text can be far larger than they are.
    charged: usize,
    indent: Option<String>,
    item: String,
    key: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

impl Dumper<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("tojson: nested deeper than {MAX_DEPTH} levels")));
        }
        let new = (self.out.len() - self.charged) / BYTES_PER_FUEL;
        self.charged += new * BYTES_PER_FUEL;
        self.state.consume_fuel(1 + new as u64)?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&json_number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.object(value, depth)?,
            other => return Err(invalid(format!("tojson: a value of type {other} is not JSON"))),
        }
        Ok(())
    }

    fn list(&mut self, list: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for item in list.try_iter()? {
            self.separate(empty, depth + 1);
            empty = false;
            self.value(&item, depth + 1)?;
        }
        self.close(']', empty, depth);
        Ok(())
    }

    fn object(&mut self, object: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<(String, Value)> =
            object.try_iter()?.map(|key| Ok((key_text(&key)?, key))).collect::<Result<_, Error>>()?;
        if self.sort_keys {
            keys.sort_by(|a, b| a.0.cmp(&b.0));
        }
        self.out.push('{');
        let empty = keys.is_empty();
        for (i, (text, key)) in keys.into_iter().enumerate() {
            self.separate(i == 0, depth + 1);
            self.string(&text)?;
            self.out.push_str(&self.key);
            self.value(&object.get_item(&key)?, depth + 1)?;
        }
        self.close('}', empty, depth);
        Ok(())
    }

    fn separate(&mut self, first: bool, depth: usize) {
        if !first {
            self.out.push_str(&self.item);
        }
        self.new_line(depth);
    }

    fn close(&mut self, bracket: char, empty: bool, depth: usize) {
        if !empty {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        let quoted = serde_json::to_string(text).map_err(|error| invalid(format!("tojson: {error}")))?;
        if !self.ensure_ascii {
            self.out.push_str(&quoted);
            return Ok(());
        }
        for c in quoted.chars() {
            if c.is_ascii() {
                self.out.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(self.out, "\\u{unit:04x}");
                }
            }
        }
        Ok(())
    }
}

/// Python turns the keys of a dictionary into strings as it dumps them.
fn key_text(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::String => key.to_string(),
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => key.to_string().to_lowercase(),
        ValueKind::Number => json_number(key),
        other => return Err(invalid(format!("tojson: a key of type {other} is not JSON"))),
    })
}

/// JSON has no numbers that are not finite; Python writes these words.
fn json_number(value: &Value) -> String {
    match number(value).as_str() {
        "nan" => "NaN".to_owned(),
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        finite => finite.to_owned(),
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
