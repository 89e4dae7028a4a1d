use super::*;
use crate::fields::{Fate, Field, tables};
use std::collections::BTreeSet;

fn schema<'a>(document: &'a Value, name: &str) -> &'a Value {
    &document["components"]["schemas"][name]
}

/// Calls `see` with every value in it.
fn walk<'a>(value: &'a Value, see: &mut dyn FnMut(&'a Value)) {
    see(value);
    match value {
        Value::Object(map) => map.values().for_each(|value| walk(value, see)),
        Value::Array(list) => list.iter().for_each(|value| walk(value, see)),
        _ => {}
    }
}

#[test]
fn every_part_is_read() {
    for part in PARTS {
        serde_json::from_str::<Value>(part).unwrap();
    }
}

#[test]
fn every_schema_is_there_and_used() {
    let document = document(vec!["m".into()], 1);
    let mut used: BTreeSet<&str> = BTreeSet::new();
    walk(&document, &mut |value| used.extend(value["$ref"].as_str().map(|name| name.rsplit('/').next().unwrap())));
    let there: BTreeSet<&str> =
        document["components"]["schemas"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(used, there);
    walk(&document, &mut |value| {
        let left = value.as_object().into_iter().flat_map(|map| map.keys()).find(|key| key.starts_with("x-"));
        assert_eq!(left, None);
    });
}

#[test]
fn bodies_have_the_parameters_that_the_tables_say_are_taken() {
    let document = document(vec!["m".into()], 1);
    let reference = |path: &str| {
        document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str()
    };
    for table in tables() {
        for path in table.routes {
            let body = schema(&document, reference(path).expect(path).rsplit('/').next().unwrap());
            let properties: BTreeSet<&str> =
                body["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            let is_nested = |name: &str| name.contains(['.', '[']);
            let taken = |field: &&Field| field.fate != Fate::Refused || !field.taken.is_empty();
            let named = |name: &'static str| name.split(['.', '[']).next().unwrap_or(name);
            // A route below another reads the same body, and does with some of it nothing.
            let readers = tables().into_iter().filter(|other| other.routes.iter().any(|of| path.starts_with(of)));
            let listed: BTreeSet<&str> =
                readers.flat_map(|table| table.fields().collect::<Vec<_>>()).map(|field| named(field.name)).collect();
            let defaults: BTreeSet<&str> = DEFAULTS.iter().map(|(name, _)| *name).collect();
            for field in table.fields().filter(taken).filter(|field| !is_nested(field.name)) {
                assert!(properties.contains(field.name), "{path} takes {}", field.name);
            }
            let unknown: Vec<_> = properties.difference(&listed).filter(|name| !defaults.contains(*name)).collect();
            assert!(unknown.is_empty(), "{path} does not take {unknown:?}");
            assert_eq!(body["additionalProperties"]["$ref"], "#/components/schemas/Nothing", "{path}");
        }
    }
}

#[test]
fn models_are_named_and_must_be_where_there_are_several() {
    let one = document(vec!["m".into()], 1);
    assert_eq!(schema(&one, "Model")["enum"], json!(["m", null]));
    assert_eq!(schema(&one, "ChatRequest")["required"], json!(["messages"]));
    let two = document(vec!["m".into(), "other".into()], 2);
    assert_eq!(schema(&two, "Model")["enum"], json!(["m", "other"]));
    assert_eq!(schema(&two, "ChatRequest")["required"], json!(["messages", "model"]));
    assert_eq!(schema(&two, "ChatCompletion")["required"], schema(&one, "ChatCompletion")["required"]);
}
