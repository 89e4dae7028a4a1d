//! JSON schemas: what is supported of them, and the form in which llguidance takes them.
//!
//! llguidance leaves out what it does not know, and its errors name no place. Here every keyword is looked at: it is handed on, dropped as an
//! annotation, or refused by name and place. References are resolved, because llguidance reads only the plainest.

mod disjoint;
mod finite;
mod numbers;
mod pattern;

use crate::error::GrammarError;
use numbers::{check_numbers, count, number, step, whole};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Levels of nested values. Real schemas have fewer than 20; llguidance takes a few KiB of stack for each.
const MAX_DEPTH: usize = 64;

/// Bytes of names and values that an answer has to spell. What is forced is cut into tokens in one go, while the row waits.
const MAX_SPELLED: usize = 32 << 10;
/// Pairs of patterns among `patternProperties`: llguidance compares any two, for up to a millisecond.
const MAX_PAIRS: usize = 1000;

/// Characters of a wrong value that a message repeats.
const MAX_SHOWN: usize = 50;

const FORMATS: [&str; 10] =
    ["date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];
const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

/// Keywords that say something about a value, and that no mask can hold an answer to.
const UNSUPPORTED: [&str; 19] = [
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "propertyNames",
    "contains",
    "minContains",
    "maxContains",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "$anchor",
    "$vocabulary",
];

/// Says whether an answer can be held to a schema, as far as its keywords tell.
///
/// # Errors
/// [`GrammarError::Structure`] names the keyword at fault and its place.
pub fn check(schema: &Value) -> Result<(), GrammarError> {
    supported(schema).map(drop)
}

/// A schema in the form that llguidance takes, which allows no text that the given one does not.
pub(crate) fn supported(schema: &Value) -> Result<Value, GrammarError> {
    let mut walk = Walk { root: schema, names: HashMap::new(), pending: Vec::new(), pairs: 0, spelled: 0 };
    let root = match walk.schema(schema, &Place::Root, 0)? {
        Value::Bool(true) => Map::new(),
        Value::Object(root) => root,
        _ => return Err(Place::Root.fault("nothing is allowed by a schema that is `false`")),
    };
    let mut definitions = Map::new();
    while let Some((name, target, pointer)) = walk.pending.pop() {
        let definition = walk.schema(target, &Place::Pointer(&pointer), 0)?;
        definitions.insert(name, definition);
    }
    if let Some(name) = finite::endless(&root, &definitions) {
        let pointer = walk.names.iter().find(|(_, known)| **known == name).map_or("#", |(pointer, _)| pointer);
        return Err(Place::Pointer(pointer)
            .fault("every value needs another one of the same schema within it, so that none ends"));
    }
    let mut root = root;
    if !definitions.is_empty() {
        root.insert("$defs".into(), definitions.into());
    }
    root.insert("x-guidance".into(), style());
    Ok(root.into())
}

/// Notation of JSON: on one line, with a space after `:` and `,`, as `json.dumps` does and models mostly do by themselves. A choice of
/// whitespace would let a model that is at a loss write nothing else, and would leave nothing forced between keys. Printable characters are
/// not escaped, so that no key can be spelled in two ways.
fn style() -> Value {
    json!({
        "whitespace_flexible": false,
        "item_separator": ", ",
        "key_separator": ": ",
        "json_allowed_escapes": "nrbtf\\\"",
    })
}

/// A place in a schema, for messages.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Pointer(&'a str),
    In(&'a Place<'a>, &'a str),
    At(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn fault(&self, message: impl AsRef<str>) -> GrammarError {
        GrammarError::structure(format!("schema at {}: {}", self.pointer(), message.as_ref()))
    }

    fn pointer(&self) -> String {
        match self {
            Self::Root => "#".to_owned(),
            Self::Pointer(pointer) => (*pointer).to_owned(),
            Self::In(outer, key) => format!("{}/{}", outer.pointer(), key.replace('~', "~0").replace('/', "~1")),
            Self::At(outer, index) => format!("{}/{index}", outer.pointer()),
        }
    }
}

struct Walk<'a> {
    root: &'a Value,
    /// Names of definitions, by the pointers of references.
    names: HashMap<String, String>,
    /// Definitions that are not walked yet: name, schema and pointer.
    pending: Vec<(String, &'a Value, String)>,
    /// Pairs of patterns of names, each of which llguidance compares.
    pairs: usize,
    /// Bytes of names and values that an answer has to spell.
    spelled: usize,
}

impl<'a> Walk<'a> {
    fn schema(&mut self, schema: &'a Value, place: &Place, depth: usize) -> Result<Value, GrammarError> {
        if depth > MAX_DEPTH {
            return Err(place.fault(format!("more than {MAX_DEPTH} levels")));
        }
        let keywords = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(keywords) => keywords,
            _ => return Err(place.fault("expected an object or a boolean")),
        };
        let types = types(keywords, place)?;
        let strings = types.as_ref().is_none_or(|types| types.contains(&"string"));
        let mut kept = Map::new();
        for (keyword, value) in keywords {
            let at = &Place::In(place, keyword);
            let value = match keyword.as_str() {
                "type" => value.clone(),
                "const" => self.literal(value, at, depth + 1)?,
                "enum" => self.list(value, at, |walk, value, at| walk.literal(value, at, depth + 1))?,
                "properties" | "patternProperties" => {
                    let object = value.as_object().ok_or_else(|| at.fault("expected an object of schemas"))?;
                    let mut map = Map::new();
                    if keyword == "patternProperties" {
                        self.pairs += object.len() * object.len();
                        bounded(self.pairs, MAX_PAIRS, "patterns of names", at)?;
                    }
                    for (name, schema) in object {
                        let at = &Place::In(at, name);
                        let name = if keyword == "properties" { name.clone() } else { pattern::translate(name, at)? };
                        self.spell(name.len(), at)?;
                        map.insert(name, self.schema(schema, at, depth + 1)?);
                    }
                    map.into()
                }
                "items" | "additionalItems" if value.is_array() => {
                    self.list(value, at, |walk, schema, at| walk.schema(schema, at, depth + 1))?
                }
                "anyOf" | "oneOf" if value.as_array().is_some_and(Vec::is_empty) => {
                    return Err(at.fault("an empty list allows no value"));
                }
                "prefixItems" | "allOf" | "anyOf" => {
                    self.list(value, at, |walk, schema, at| walk.schema(schema, at, depth + 1))?
                }
                "oneOf" => {
                    let options = self.list(value, at, |walk, schema, at| walk.schema(schema, at, depth + 1))?;
                    if disjoint::all(self.root, value) {
                        // As good as `anyOf`, which the schema may have too.
                        and(&mut kept, json!({ "anyOf": options }));
                        continue;
                    }
                    options
                }
                "items" | "additionalItems" | "additionalProperties" => self.schema(value, at, depth + 1)?,
                "$ref" => self.reference(value, at)?,
                "required" => self.list(value, at, |_, name, at| match name {
                    Value::String(_) => Ok(name.clone()),
                    _ => Err(at.fault("expected a property's name")),
                })?,
                "minItems" | "maxItems" | "minProperties" | "maxProperties" | "minLength" | "maxLength" => {
                    count(value, at)?
                }
                "minimum" | "maximum" => number(value, at)?,
                "multipleOf" => step(value, at)?,
                "exclusiveMinimum" | "exclusiveMaximum" if value.is_boolean() => value.clone(),
                "exclusiveMinimum" | "exclusiveMaximum" => number(value, at)?,
                "pattern" if strings => {
                    let source = value.as_str().ok_or_else(|| at.fault("expected a regular expression"))?;
                    pattern::translate(source, at)?.into()
                }
                "format" if strings => {
                    let format = value.as_str().ok_or_else(|| at.fault("expected a format's name"))?;
                    if !FORMATS.contains(&format) {
                        let known = FORMATS.join(", ");
                        return Err(at.fault(format!(
                            "`format` \"{format}\" is not supported; use `pattern`, or one of {known}"
                        )));
                    }
                    // llguidance writes the second 60 at any time; there is one at most at the end of a day.
                    match format {
                        "time" => and(&mut kept, json!({ "pattern": "^.{6}[0-5]" })),
                        "date-time" => and(&mut kept, json!({ "pattern": "^.{17}[0-5]" })),
                        _ => {}
                    }
                    value.clone()
                }
                "uniqueItems" if value == &Value::Bool(false) => continue,
                "uniqueItems" => return Err(unsupported(keyword, at)),
                keyword if UNSUPPORTED.contains(&keyword) => return Err(unsupported(keyword, at)),
                "$id" | "id" if depth > 0 && value.as_str().is_some_and(|id| !id.starts_with('#')) => {
                    return Err(at.fault(format!("`{keyword}` is supported at the top only")));
                }
                // Everything else says nothing about the value: annotations, definitions, and keywords that JSON Schema does not know.
                _ => continue,
            };
            match (keyword.as_str(), kept.get_mut("allOf"), value) {
                // Behind those that `oneOf` and `format` became.
                ("allOf", Some(Value::Array(all)), Value::Array(more)) => all.extend(more),
                (_, _, value) => drop(kept.insert(keyword.clone(), value)),
            }
        }
        check_properties(&kept, place)?;
        check_numbers(&kept, place)?;
        Ok(kept.into())
    }

    /// A value that an answer has to spell.
    fn literal(&mut self, value: &Value, at: &Place, depth: usize) -> Result<Value, GrammarError> {
        if depth > MAX_DEPTH {
            return Err(at.fault(format!("more than {MAX_DEPTH} levels")));
        }
        match value {
            Value::Number(_) => number(value, at).map(whole),
            Value::String(text) => self.text(text, at).map(|()| value.clone()),
            Value::Array(items) => {
                let items = items.iter().map(|item| self.literal(item, at, depth + 1));
                items.collect::<Result<Vec<_>, _>>().map(Value::Array)
            }
            Value::Object(fields) => {
                let mut map = Map::new();
                for (key, value) in fields {
                    self.text(key, at)?;
                    map.insert(key.clone(), self.literal(value, at, depth + 1)?);
                }
                Ok(map.into())
            }
            Value::Null | Value::Bool(_) => Ok(value.clone()),
        }
    }

    fn text(&mut self, text: &str, at: &Place) -> Result<(), GrammarError> {
        let unspelled = |c: &char| c.is_ascii_control() && !"\n\r\t\u{8}\u{c}".contains(*c);
        match text.chars().find(unspelled) {
            Some(c) => Err(at.fault(format!("the control character U+{:04X} is not supported", u32::from(c)))),
            None => self.spell(text.len(), at),
        }
    }

    fn spell(&mut self, bytes: usize, at: &Place) -> Result<(), GrammarError> {
        self.spelled += bytes;
        bounded(self.spelled, MAX_SPELLED, "bytes of names and values", at)
    }

    fn list(
        &mut self,
        value: &'a Value,
        place: &Place,
        mut each: impl FnMut(&mut Self, &'a Value, &Place) -> Result<Value, GrammarError>,
    ) -> Result<Value, GrammarError> {
        let list = value.as_array().ok_or_else(|| place.fault("expected an array"))?;
        let list = list.iter().enumerate().map(|(i, value)| each(self, value, &Place::At(place, i)));
        list.collect::<Result<Vec<_>, _>>().map(Value::Array)
    }

    /// A reference to a definition of its own, for what a reference points to.
    fn reference(&mut self, value: &'a Value, place: &Place) -> Result<Value, GrammarError> {
        let pointer = value.as_str().ok_or_else(|| place.fault("expected a reference, such as \"#/$defs/NAME\""))?;
        let name = match self.names.get(pointer) {
            Some(name) => name.clone(),
            None => {
                if !pointer.starts_with('#') {
                    let message = format!(
                        "`$ref` \"{pointer}\": remote references are not supported; copy the schema into `$defs`"
                    );
                    return Err(place.fault(message));
                }
                let target = resolve(self.root, pointer)
                    .ok_or_else(|| place.fault(format!("`$ref` \"{pointer}\" points to nothing in this schema")))?;
                let name = format!("{}", self.names.len());
                self.names.insert(pointer.to_owned(), name.clone());
                self.pending.push((name.clone(), target, pointer.to_owned()));
                name
            }
        };
        Ok(format!("#/$defs/{name}").into())
    }
}

/// Target of a reference within the schema.
fn resolve<'a>(root: &'a Value, pointer: &str) -> Option<&'a Value> {
    let path = pointer.strip_prefix('#')?;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    root.pointer(std::str::from_utf8(&bytes).ok()?)
}

fn types<'a>(keywords: &'a Map<String, Value>, place: &Place) -> Result<Option<Vec<&'a str>>, GrammarError> {
    let Some(value) = keywords.get("type") else { return Ok(None) };
    let at = &Place::In(place, "type");
    let named = |value: &'a Value| value.as_str().filter(|name| TYPES.contains(name));
    let types: Option<Vec<&str>> = match value {
        Value::Array(types) if !types.is_empty() => types.iter().map(named).collect(),
        value => named(value).map(|name| vec![name]),
    };
    types.map(Some).ok_or_else(|| {
        let listed = value.as_array().into_iter().flatten().find(|value| named(value).is_none());
        let given: String = listed.unwrap_or(value).to_string().chars().take(MAX_SHOWN).collect();
        at.fault(format!("{given} is not a type; expected one or more of {}", TYPES.join(", ")))
    })
}

/// Adds a schema that a value has to follow too.
fn and(kept: &mut Map<String, Value>, schema: Value) {
    match kept.get_mut("allOf") {
        Some(Value::Array(all)) => all.push(schema),
        _ => drop(kept.insert("allOf".into(), json!([schema]))),
    }
}

fn unsupported(keyword: &str, at: &Place) -> GrammarError {
    at.fault(format!("`{keyword}` is not supported; leave it out, and check the answer for it"))
}

fn bounded(count: usize, most: usize, of: &str, at: &Place) -> Result<(), GrammarError> {
    if count > most { Err(at.fault(format!("more than {most} {of}"))) } else { Ok(()) }
}

/// Refuses counts of properties that a repeated key would satisfy.
fn check_properties(kept: &Map<String, Value>, place: &Place) -> Result<(), GrammarError> {
    let least = kept.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
    let required = kept.get("required").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    let closed =
        kept.get("additionalProperties") == Some(&Value::Bool(false)) && !kept.contains_key("patternProperties");
    if least > required + 1 && !closed {
        let message =
            "more than one beyond the `required` ones is supported only where `additionalProperties` is false";
        return Err(Place::In(place, "minProperties").fault(message));
    }
    Ok(())
}
