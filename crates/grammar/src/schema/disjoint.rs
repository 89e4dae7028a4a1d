//! Alternatives of which no value can be two: `oneOf` then means `anyOf`.

use super::resolve;
use serde_json::{Map, Value};

/// References followed in a row.
const MAX_HOPS: usize = 16;

/// True if the alternatives exclude each other: by their types, or by a property that all require and that has another value in each.
pub(super) fn all(root: &Value, options: &Value) -> bool {
    let Some(options) = options.as_array() else { return false };
    let options: Vec<_> = options.iter().map(|option| followed(root, option)).collect();
    options.iter().enumerate().all(|(i, a)| options[i + 1..].iter().all(|b| exclude(root, *a, *b)))
}

fn followed<'a>(root: &'a Value, mut schema: &'a Value) -> Option<&'a Map<String, Value>> {
    for _ in 0..MAX_HOPS {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(pointer) => schema = resolve(root, pointer)?,
            None => return schema.as_object(),
        }
    }
    None
}

fn exclude(root: &Value, a: Option<&Map<String, Value>>, b: Option<&Map<String, Value>>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    if let (Some(a), Some(b)) = (values(a), values(b)) {
        return a.iter().all(|value| !b.contains(value));
    }
    let (kinds_a, kinds_b) = (kinds(a), kinds(b));
    if !kinds_a.is_empty() && !kinds_b.is_empty() && kinds_a.iter().all(|kind| !kinds_b.contains(kind)) {
        return true;
    }
    if kinds_a != ["object"] || kinds_b != ["object"] {
        return false;
    }
    required(a).iter().filter(|name| required(b).contains(name)).any(|name| {
        let property = |schema: &'_ Map<String, Value>| -> Option<Vec<Value>> {
            let schema = followed(root, schema.get("properties")?.get(*name)?)?;
            values(schema).map(|values| values.into_iter().cloned().collect())
        };
        match (property(a), property(b)) {
            (Some(a), Some(b)) => a.iter().all(|value| !b.contains(value)),
            _ => false,
        }
    })
}

/// The only values that a schema allows, where it lists texts, booleans or null.
fn values(schema: &Map<String, Value>) -> Option<Vec<&Value>> {
    let values = match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => vec![value],
        (None, Some(Value::Array(values))) => values.iter().collect(),
        _ => return None,
    };
    // Numbers may be equal and look different.
    values.iter().all(|value| value.is_string() || value.is_boolean() || value.is_null()).then_some(values)
}

fn kinds(schema: &Map<String, Value>) -> Vec<&str> {
    let kind = |value: &'_ Value| match value.as_str() {
        Some("integer") => Some("number"),
        Some("null") => Some("null"),
        Some("boolean") => Some("boolean"),
        Some("number") => Some("number"),
        Some("string") => Some("string"),
        Some("array") => Some("array"),
        Some("object") => Some("object"),
        _ => None,
    };
    match schema.get("type") {
        Some(Value::Array(types)) => types.iter().filter_map(kind).collect(),
        Some(value) => kind(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn required(schema: &Map<String, Value>) -> Vec<&str> {
    schema
        .get("required")
        .and_then(Value::as_array)
        .map_or_else(Vec::new, |names| names.iter().filter_map(Value::as_str).collect())
}
