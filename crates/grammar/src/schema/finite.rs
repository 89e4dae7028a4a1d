//! Schemas that no finite value satisfies, because each value needs another one of the same schema within it.

use serde_json::{Map, Value};
use std::collections::HashSet;

/// The name of a definition that needs itself; an empty one if the root does.
pub(super) fn endless(root: &Map<String, Value>, definitions: &Map<String, Value>) -> Option<String> {
    let mut ends = HashSet::new();
    loop {
        let more: Vec<&String> = definitions
            .iter()
            .filter(|(name, schema)| !ends.contains(*name) && finite(schema, &ends))
            .map(|(name, _)| name)
            .collect();
        if more.is_empty() {
            break;
        }
        ends.extend(more.into_iter().cloned());
    }
    match definitions.keys().find(|name| !ends.contains(*name)) {
        Some(name) => Some(name.clone()),
        None => (!all(root, &ends)).then(String::new),
    }
}

/// True if some value of the schema ends, where those of the definitions in `ends` do. A schema that is `false` is no matter of size.
fn finite(schema: &Value, ends: &HashSet<String>) -> bool {
    schema.as_object().is_none_or(|keywords| all(keywords, ends))
}

fn all(keywords: &Map<String, Value>, ends: &HashSet<String>) -> bool {
    let reference = keywords.get("$ref").and_then(Value::as_str).and_then(|pointer| pointer.rsplit('/').next());
    let list = |keyword: &str| keywords.get(keyword).and_then(Value::as_array);
    reference.is_none_or(|name| ends.contains(name))
        && list("allOf").is_none_or(|schemas| schemas.iter().all(|schema| finite(schema, ends)))
        && ["anyOf", "oneOf"]
            .iter()
            .all(|keyword| list(keyword).is_none_or(|schemas| schemas.iter().any(|schema| finite(schema, ends))))
        && (ends_by_type(keywords) || ends_within(keywords, ends))
}

/// True if the schema has values that are neither objects nor arrays.
fn ends_by_type(keywords: &Map<String, Value>) -> bool {
    let scalar = |kind: &Value| kind != "object" && kind != "array";
    match keywords.get("type") {
        Some(Value::Array(types)) => types.iter().any(scalar),
        Some(kind) => scalar(kind),
        None => true,
    }
}

fn ends_within(keywords: &Map<String, Value>, ends: &HashSet<String>) -> bool {
    let types = keywords.get("type").map(Value::to_string).unwrap_or_default();
    let properties = keywords.get("properties").and_then(Value::as_object);
    let required = keywords.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let object = types.contains("object")
        && required.clone().all(|name| properties.and_then(|p| p.get(name)).is_none_or(|schema| finite(schema, ends)));
    let least = keywords.get("minItems").and_then(Value::as_u64).unwrap_or(0) as usize;
    let items =
        |keyword: &str| keywords.get(keyword).filter(|items| !items.is_array()).is_none_or(|items| finite(items, ends));
    let prefix = ["prefixItems", "items"].iter().find_map(|keyword| keywords.get(*keyword).and_then(Value::as_array));
    let prefix_ends = prefix.is_none_or(|schemas| schemas.iter().take(least).all(|schema| finite(schema, ends)));
    let array = types.contains("array") && prefix_ends && (prefix.map_or(0, Vec::len) >= least || items("items"));
    object || array
}
