//! Tools as formats need them, and the types of their arguments.

use super::json::{Json, escape, is_beyond, is_json, quoted};
use super::loose::from_python;
use super::sink::Sink;
use super::step::{Garbled, Step};
use serde_json::Value;

/// Levels of `anyOf` and the like within a property that are looked at.
const MAX_CHOICES: usize = 8;

/// A tool as formats need it: arguments that are not JSON in a model's markup become JSON by its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSchema {
    /// Its name.
    pub name: String,
    /// JSON Schema of its arguments: an object's.
    pub parameters: Value,
}

/// The schema to which a `$ref` leads, within `root`.
pub(super) fn referred<'a>(schema: &Value, root: &'a Value) -> Option<&'a Value> {
    root.pointer(schema.get("$ref")?.as_str()?.strip_prefix('#')?)
}

/// The schema of an object to which a tool's leads.
pub(super) fn object(root: &Value) -> &Value {
    let mut schema = root;
    for _ in 0..MAX_CHOICES {
        match referred(schema, root) {
            Some(to) => schema = to,
            None => break,
        }
    }
    schema
}

/// Types that a schema allows, a bit each; 0 where it names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Types(u8);

impl Types {
    pub(super) const ANY: Self = Self(0xff);
    pub(super) const TEXT: Self = Self(1);
    const NULL: Self = Self(2);
    pub(super) const LIST: Self = Self(16);
    pub(super) const OBJECT: Self = Self(32);

    /// The types of an argument; `unknown` where the schema does not tell.
    pub(super) fn of(tools: &[ToolSchema], tool: &str, argument: &str, unknown: Self) -> Self {
        let Some(tool) = tools.iter().find(|known| known.name == tool) else { return unknown };
        let schema = object(&tool.parameters)["properties"].get(argument);
        schema.map_or(Self(0), |schema| Self::in_schema(schema, &tool.parameters)).or_unknown(unknown)
    }

    /// The types that a schema names, whose references lead into `root`.
    pub(super) fn in_schema(schema: &Value, root: &Value) -> Self {
        Self::within(schema, root, MAX_CHOICES)
    }

    /// These types, or `unknown` where there are none.
    pub(super) fn or_unknown(self, unknown: Self) -> Self {
        if self == Self(0) { unknown } else { self }
    }

    fn within(schema: &Value, root: &Value, levels: usize) -> Self {
        let list = |key: &str| schema.get(key).and_then(Value::as_array).into_iter().flatten();
        let named = match &schema["type"] {
            Value::String(name) => Self::named(name),
            Value::Array(names) => {
                names.iter().filter_map(Value::as_str).fold(Self(0), |all, name| all.or(Self::named(name)))
            }
            _ => {
                let values = list("enum").chain(schema.get("const")).map(Self::of_value);
                let choices = ["anyOf", "oneOf", "allOf"].into_iter().flat_map(list).filter(|_| levels > 0);
                let choices = choices.map(|choice| Self::within(choice, root, levels - 1));
                let found = values.chain(choices).fold(Self(0), Self::or);
                match schema.get("$ref") {
                    None => found,
                    Some(_) if levels == 0 => Self::ANY,
                    Some(_) => referred(schema, root).map_or(Self::ANY, |to| Self::within(to, root, levels - 1)),
                }
            }
        };
        if schema["nullable"] == Value::Bool(true) { named.or(Self::NULL) } else { named }
    }

    fn named(name: &str) -> Self {
        Self(match name {
            "string" => 1,
            "null" => 2,
            "boolean" => 4,
            "integer" | "number" => 8,
            "array" => 16,
            "object" => 32,
            _ => 0,
        })
    }

    pub(super) fn of_value(value: &Value) -> Self {
        Self::named(match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        })
    }

    /// The type of a JSON value by its first character.
    fn of_json(text: &str) -> Self {
        Self::named(match text.as_bytes().first() {
            Some(b'"') => "string",
            Some(b'n') => "null",
            Some(b't' | b'f') => "boolean",
            Some(b'[') => "array",
            Some(b'{') => "object",
            _ => "number",
        })
    }

    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True if a text is written as it is: nothing but a string, or null, may come.
    pub(super) fn is_text(self) -> bool {
        self.admits(Self::TEXT) && self.0 & !3 == 0
    }

    /// Names of those that are no strings, lists and objects.
    pub(super) fn scalars(self) -> Vec<&'static str> {
        ["null", "boolean", "number"].into_iter().filter(|name| self.admits(Self::named(name))).collect()
    }

    pub(super) fn admits(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// An argument whose markup has no types, into JSON by its schema. A string goes out while it comes; `null` is one only where the schema
/// has no null. Anything else is held back until it is whole: JSON of a type that the schema allows stays as it is, a literal of
/// Python becomes JSON, and the rest is a string.
#[derive(Debug, Clone)]
pub(super) struct Argument {
    types: Types,
    held: String,
    begun: bool,
}

impl Argument {
    pub(super) fn new(types: Types) -> Self {
        Self { types, held: String::new(), begun: false }
    }

    pub(super) fn push(&mut self, c: char, sink: &mut Sink) {
        let mut json = String::new();
        if self.begun {
            escape(c, &mut json);
        } else {
            self.held.push(c);
            if self.types.is_text() && !(self.types.admits(Types::NULL) && "null".starts_with(&self.held)) {
                self.begun = true;
                json.push('"');
                self.held.drain(..).for_each(|c| escape(c, &mut json));
            }
        }
        sink.arguments(&json);
    }

    pub(super) fn finish(self, sink: &mut Sink) -> Result<(), Garbled> {
        if self.begun {
            sink.arguments("\"");
            return Ok(());
        }
        let text = self.held.trim();
        if is_beyond(text) && !self.types.admits(Types::TEXT) {
            return Err(Garbled);
        }
        let json = if is_json(text) { Some(text.to_owned()) } else { from_python(text) };
        let allowed = |json: &str| self.types.admits(Types::of_json(json)) || !self.types.admits(Types::TEXT);
        match json.filter(|json| allowed(json)) {
            Some(json) => sink.arguments(&json),
            None => sink.arguments(&quoted(&self.held)),
        }
        Ok(())
    }
}

/// The object of arguments in a model's markup that is JSON already: checked, and passed on as it stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Arguments(Option<Json>);

impl Arguments {
    /// Takes the next character; space before the object is left out.
    pub(super) fn push(&mut self, c: char, mut to: impl FnMut(&str)) -> Result<Step, Garbled> {
        let json = match (&mut self.0, c) {
            (Some(json), _) => json,
            (None, '{') => self.0.insert(Json::default()),
            (None, c) if c.is_ascii_whitespace() => return Ok(Step::More),
            (None, _) => return Err(Garbled),
        };
        let step = json.push(c)?;
        to(c.encode_utf8(&mut [0; 4]));
        Ok(step)
    }
}
