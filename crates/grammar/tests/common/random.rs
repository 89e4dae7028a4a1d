//! Random schemas, of all keywords that are supported.

use super::Rng;
use serde_json::{Map, Value, json};

const NAMES: [&str; 8] = ["id", "name", "tags", "näme", "a/b", "with space", "x\"y", "_"];
const TEXTS: [&str; 7] = ["", "red", "green", "a \"quoted\" one", "line\nbreak", "ü", "longer than the others are"];
const PATTERNS: [&str; 14] = [
    "^[a-z]{2,5}$",
    "[0-9]+",
    "^(foo|bar)-\\d{3}$",
    "^\\w+@\\w+\\.com$",
    "^[^\\s]+$",
    "a|b",
    "^a|b$",
    "^.{3,8}$",
    "\\.",
    "^$",
    "^[A-Z][a-z]*( [A-Z][a-z]*)*$",
    "^\\S{1,4}$",
    "^[a[b]+$",
    "^(x&&y|[&~]{2})$",
];
// Dates are left out: every 29 February is taken.
const FORMATS: [&str; 6] = ["uuid", "ipv4", "ipv6", "hostname", "email", "time"];
const KEYS: [&str; 3] = ["^x-", "^[0-9]+$", "_id$"];

/// A schema with definitions that refer to each other.
pub fn schema(rng: &mut Rng) -> Value {
    let mut root = match any(rng, 3) {
        Value::Object(root) => root,
        other => Map::from_iter([("allOf".to_owned(), json!([other]))]),
    };
    root.insert("$defs".into(), json!({ "leaf": leaf(rng), "node": node(rng), "a/b": any(rng, 1) }));
    root.into()
}

/// A list or tree.
fn node(rng: &mut Rng) -> Value {
    let next = rng.pick(&["#/$defs/node", "#/$defs/leaf"]);
    json!({
        "type": "object",
        "properties": { "value": { "$ref": "#/$defs/leaf" }, "next": { "anyOf": [{ "type": "null" }, { "$ref": next }] } },
        "required": ["value"],
        "additionalProperties": false,
    })
}

fn any(rng: &mut Rng, depth: usize) -> Value {
    if depth == 0 {
        return leaf(rng);
    }
    match rng.below(14) {
        0..=3 => object(rng, depth),
        4..=6 => array(rng, depth),
        7 => json!({ "anyOf": some(rng, depth, 1, 3) }),
        8 => json!({ "$ref": rng.pick(&["#/$defs/leaf", "#/$defs/node", "#/$defs/a~1b"]) }),
        9 => json!({ "oneOf": [
            { "type": "object", "properties": { "kind": { "const": "a" }, "v": any(rng, depth - 1) }, "required": ["kind"] },
            { "type": "object", "properties": { "kind": { "const": "b" }, "w": any(rng, depth - 1) }, "required": ["kind", "w"] },
            { "type": rng.pick(&["string", "integer", "null"]) },
        ] }),
        10 => json!({ "allOf": [object(rng, depth - 1), object(rng, depth - 1)] }),
        _ => leaf(rng),
    }
}

fn some(rng: &mut Rng, depth: usize, least: usize, most: usize) -> Vec<Value> {
    (0..least + rng.below(most - least + 1)).map(|_| any(rng, depth - 1)).collect()
}

fn object(rng: &mut Rng, depth: usize) -> Value {
    let mut object = Map::from_iter([("type".to_owned(), json!("object"))]);
    let mut properties = Map::new();
    for _ in 0..rng.below(4) {
        properties.insert(rng.pick(&NAMES).into(), any(rng, depth.saturating_sub(1)));
    }
    let required: Vec<&String> = properties.keys().filter(|_| rng.chance(2)).collect();
    let mut required = json!(required);
    if rng.chance(8) {
        required.as_array_mut().unwrap().push(json!("elsewhere"));
    }
    match rng.below(4) {
        0 => {}
        1 => drop(object.insert("additionalProperties".into(), leaf(rng))),
        _ => drop(object.insert("additionalProperties".into(), json!(false))),
    }
    if rng.chance(6) {
        object.insert("patternProperties".into(), json!({ rng.pick(&KEYS): leaf(rng) }));
    }
    if rng.chance(8) {
        object.insert(rng.pick(&["minProperties", "maxProperties"]).into(), json!(rng.below(4)));
    }
    object.insert("properties".into(), properties.into());
    object.insert("required".into(), required);
    object.into()
}

fn array(rng: &mut Rng, depth: usize) -> Value {
    let mut array = Map::from_iter([("type".to_owned(), json!("array"))]);
    if rng.chance(4) {
        array.insert("prefixItems".into(), some(rng, depth, 1, 3).into());
    }
    if rng.chance(3) {
        array.insert("items".into(), json!(false));
    } else {
        array.insert("items".into(), any(rng, depth - 1));
    }
    if rng.chance(3) {
        array.insert("minItems".into(), json!(rng.below(4)));
    }
    if rng.chance(2) {
        array.insert("maxItems".into(), json!(rng.below(6)));
    }
    array.into()
}

fn leaf(rng: &mut Rng) -> Value {
    match rng.below(12) {
        0 => json!({ "type": "boolean" }),
        1 => json!({ "enum": [rng.pick(&TEXTS), rng.below(9), null, { "k": [rng.below(3), 1.5, true] }, -0.25] }),
        2 => json!({ "const": rng.pick(&TEXTS) }),
        3 => json!({ "type": ["string", "null"], "maxLength": rng.below(9) }),
        4..=6 => number(rng),
        7 => json!(true),
        _ => string(rng),
    }
}

fn number(rng: &mut Rng) -> Value {
    let kind = rng.pick(&["integer", "number"]);
    let mut number = Map::from_iter([("type".to_owned(), json!(kind))]);
    let low = rng.below(4000) as f64 / rng.pick(&[1.0, 4.0, 10.0, 1000.0]) * rng.pick(&[1.0, -1.0]);
    let high = low + rng.below(900) as f64 / rng.pick(&[1.0, 8.0, 100.0]);
    if rng.chance(2) {
        number.insert(rng.pick(&["minimum", "exclusiveMinimum"]).into(), json!(low));
    }
    if rng.chance(2) {
        number.insert(rng.pick(&["maximum", "exclusiveMaximum"]).into(), json!(high));
    }
    if rng.chance(5) {
        number.insert("multipleOf".into(), json!(rng.pick(&[1.0, 2.0, 5.0, 7.0, 0.5, 0.25, 0.1])));
    }
    number.into()
}

fn string(rng: &mut Rng) -> Value {
    let mut string = Map::from_iter([("type".to_owned(), json!("string"))]);
    match rng.below(5) {
        0 => drop(string.insert("format".into(), json!(rng.pick(&FORMATS)))),
        1 | 2 => drop(string.insert("pattern".into(), json!(rng.pick(&PATTERNS)))),
        _ => {}
    }
    if rng.chance(3) {
        string.insert("minLength".into(), json!(rng.below(5)));
    }
    if rng.chance(3) {
        string.insert("maxLength".into(), json!(2 + rng.below(12)));
    }
    string.into()
}
