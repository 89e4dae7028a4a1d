//! Grammars of forced calls, in llguidance's dialect of Lark.

use crate::output::json::quoted;
use crate::output::tools::{ToolSchema, Types, object, referred};
use crate::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// Keys of a schema's root to which references in its properties lead.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];
/// Keywords of a tool's schema that the fields of a call follow, or that say nothing of them.
const FOLLOWED: [&str; 15] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "$defs",
    "definitions",
    "$ref",
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
];
/// Levels of references and choices within an argument's schema that are looked at.
const MAX_LEVELS: usize = 8;
/// A line feed that may be missing.
pub(super) const LINE: &str = "/\\n?/";
/// Any text.
pub(super) const TEXT: &str = "/(.|\\n)*/";

/// A grammar being written.
#[derive(Debug)]
pub(super) struct Lark<'a> {
    tokenizer: &'a Tokenizer,
    rules: String,
    count: usize,
}

impl<'a> Lark<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, rules: String::new(), count: 0 }
    }

    /// The grammar with this first rule.
    pub(super) fn finish(self, start: &str) -> String {
        format!("start: {start}\n{}", self.rules)
    }

    /// A text; special tokens in it are written as their ids, because no text matches them.
    pub(super) fn text(&self, text: &str) -> String {
        let mut parts: Vec<String> = Vec::new();
        let (mut rest, mut plain) = (text, String::new());
        while let Some(c) = rest.chars().next() {
            let end = match c {
                '<' => rest.find('>'),
                '[' => rest.find(']'),
                _ => None,
            };
            let token = end.map(|end| &rest[..=end]);
            let id =
                token.and_then(|token| self.tokenizer.token_to_id(token)).filter(|&id| self.tokenizer.is_special(id));
            if let (Some(token), Some(id)) = (token, id) {
                if !plain.is_empty() {
                    parts.push(quoted(&std::mem::take(&mut plain)));
                }
                parts.push(format!("<[{id}]>"));
                rest = &rest[token.len()..];
            } else {
                plain.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        if !plain.is_empty() {
            parts.push(quoted(&plain));
        }
        parts.join(" ")
    }

    /// Any text up to a marker, in which none of the others comes, and the marker.
    pub(super) fn until(&mut self, marker: &str, others: &[&str]) -> String {
        let behind = self.text(marker);
        let text = if others.is_empty() { TEXT.to_owned() } else { self.without(others) };
        match behind.contains("<[") {
            // No text runs across a special token.
            true => format!("{} {behind}", self.rule("", &text)),
            false => self.rule(&format!("[suffix={behind}]"), &text),
        }
    }

    /// Any text in which none of the markers comes.
    pub(super) fn without(&mut self, markers: &[&str]) -> String {
        let markers: Vec<String> = markers.iter().map(|marker| self.text(marker)).collect();
        let texts = markers.iter().filter(|marker| !marker.contains("<["));
        // A name in capitals is one expression, and only those can be taken from each other.
        let name = format!("T{}", self.count);
        self.count += 1;
        let without: String = texts.map(|marker| format!(" & ~({TEXT} {marker} {TEXT})")).collect();
        let _ = writeln!(self.rules, "{name}: {TEXT}{without}");
        name
    }

    /// One of these.
    pub(super) fn any(&mut self, choices: &[String]) -> String {
        self.rule("", &choices.join(" | "))
    }

    /// A JSON value of a schema, which may refer to definitions of the tool's.
    pub(super) fn json(&mut self, tool: &ToolSchema, schema: &Value) -> String {
        let mut schema = schema.clone();
        if let (Some(to), Some(from)) = (schema.as_object_mut(), tool.parameters.as_object()) {
            for key in DEFINITIONS {
                if let (false, Some(definitions)) = (to.contains_key(key), from.get(key)) {
                    to.insert(key.to_owned(), definitions.clone());
                }
            }
        }
        self.rule("", &format!("%json {schema}"))
    }

    /// A JSON object of a tool's arguments. A schema that names no type is an object's all the same.
    pub(super) fn arguments(&mut self, tool: &ToolSchema) -> String {
        let mut schema = tool.parameters.clone();
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("type".into(), "object".into());
        }
        self.json(tool, &schema)
    }

    /// A value in Gemma's notation, strings between two `quote`s.
    pub(super) fn marked(&mut self, tool: &ToolSchema, schema: &Value, quote: &str) -> String {
        self.marked_within(tool, schema, quote, MAX_LEVELS)
    }

    fn marked_within(&mut self, tool: &ToolSchema, schema: &Value, quote: &str, levels: usize) -> String {
        let root = &tool.parameters;
        if levels > 0 && schema.get("type").is_none() {
            if let Some(to) = referred(schema, root) {
                return self.marked_within(tool, to, quote, levels - 1);
            }
            if let Some(choices) = schema.get("anyOf").or(schema.get("oneOf")).and_then(Value::as_array) {
                let choices: Vec<String> =
                    choices.iter().map(|choice| self.marked_within(tool, choice, quote, levels - 1)).collect();
                return self.any(&choices);
            }
        }
        let types = Types::in_schema(schema, root).or_unknown(Types::ANY);
        if let Some(values) = listed(schema, root) {
            let allowed = values.iter().filter(|value| types.admits(Types::of_value(value)));
            let choices: Vec<String> = allowed.filter_map(|value| self.in_marks(value, quote)).collect();
            return self.any(&choices);
        }
        self.define_any(quote);
        let mut choices: Vec<String> = Vec::new();
        for (kind, name) in [(Types::TEXT, "any_text"), (Types::LIST, "any_list"), (Types::OBJECT, "any_object")] {
            choices.extend(types.admits(kind).then(|| name.to_owned()));
        }
        if !types.scalars().is_empty() {
            let integer = |kind: &Value| kind == "integer";
            let is_integer =
                integer(&schema["type"]) || schema["type"].as_array().is_some_and(|all| all.iter().any(integer));
            let scalars =
                types.scalars().into_iter().map(|kind| if kind == "number" && is_integer { "integer" } else { kind });
            let mut scalar = if schema.is_object() { schema.clone() } else { json!({}) };
            scalar["type"] = scalars.collect();
            choices.push(self.json(tool, &scalar));
        }
        self.any(&choices)
    }

    /// A value as Gemma writes it; none if a text in it has the mark.
    fn in_marks(&self, value: &Value, quote: &str) -> Option<String> {
        let mark = self.text(quote);
        let joined = |parts: Option<Vec<String>>| parts.map(|parts| parts.join(" \",\" "));
        Some(match value {
            Value::String(text) if text.contains(quote) => return None,
            Value::String(text) if text.is_empty() => format!("{mark} {mark}"),
            Value::String(text) => format!("{mark} {} {mark}", quoted(text)),
            Value::Array(items) => {
                format!("\"[\" {} \"]\"", joined(items.iter().map(|item| self.in_marks(item, quote)).collect())?)
            }
            Value::Object(fields) => {
                let field = |(key, value): (&String, &Value)| {
                    self.in_marks(value, quote)
                        .filter(|_| super::gemma::carries(key))
                        .map(|value| format!("{} {value}", quoted(&format!("{key}:"))))
                };
                format!("\"{{\" {} \"}}\"", joined(fields.iter().map(field).collect())?)
            }
            other => quoted(&other.to_string()),
        })
    }

    /// Rules of any value in Gemma's notation.
    fn define_any(&mut self, quote: &str) {
        if !self.rules.contains("\nany:") {
            let text = format!("{} {}", self.text(quote), self.until(quote, &[]));
            let number = "%json {\"type\": [\"number\", \"boolean\", \"null\"]}";
            let _ = write!(
                self.rules,
                "\nany: any_text | any_number | any_list | any_object\nany_text: {text}\nany_number: {number}\n\
                 any_list: \"[\" (any (\",\" any)*)? \"]\"\nany_object: \"{{\" (any_field (\",\" any_field)*)? \"}}\"\n\
                 any_field: /[^ \\t\\r\\n:,{{}}\\[\\]()=<\"']{{1,64}}/ \":\" any\n"
            );
        }
    }

    /// Arguments of a tool whose names can be written, as `carries` says.
    pub(super) fn fields(&self, tool: &ToolSchema, carries: impl Fn(&str) -> bool) -> Vec<Field> {
        let fields = fields(&tool.parameters).into_iter().filter(|field| field.is_possible());
        fields.filter(|field| carries(&field.key) && self.is_plain(&field.key)).collect()
    }

    /// True if no special token is written like a part of the text.
    pub(super) fn is_plain(&self, text: &str) -> bool {
        !self.text(text).contains("<[")
    }

    /// Fields in a row, a separator between two of them: first those that have to be there, then any of the others in their order.
    pub(super) fn separated(&mut self, fields: Vec<(String, bool)>, separator: &str) -> String {
        let separator = self.text(separator);
        let fields: Vec<(String, bool)> =
            fields.into_iter().map(|(field, required)| (self.rule("", &field), required)).collect();
        let of =
            |wanted| fields.iter().filter(move |(_, required)| *required == wanted).map(|(field, _)| field.as_str());
        let (required, optional): (Vec<&str>, Vec<&str>) = (of(true).collect(), of(false).collect());
        let further =
            |fields: &[&str]| fields.iter().map(|field| format!(" ({separator} {field})?")).collect::<String>();
        if !required.is_empty() {
            return required.join(&format!(" {separator} ")) + &further(&optional);
        }
        let first: Vec<String> =
            (0..optional.len()).map(|i| format!("{}{}", optional[i], further(&optional[i + 1..]))).collect();
        if first.is_empty() { String::new() } else { format!("({})?", first.join(" | ")) }
    }

    /// A rule of its own; its name.
    pub(super) fn rule(&mut self, options: &str, body: &str) -> String {
        let name = format!("r{}", self.count);
        self.count += 1;
        let _ = writeln!(self.rules, "{name}{options}: {body}");
        name
    }
}

/// An argument of a tool.
#[derive(Debug)]
pub(super) struct Field {
    pub key: String,
    pub schema: Value,
    /// It has to be there.
    pub required: bool,
}

impl Field {
    /// False if nothing is a value of it, so that it is left out.
    fn is_possible(&self) -> bool {
        self.required || self.schema != Value::Bool(false)
    }
}

/// Arguments of a tool with this schema: those that it describes, and others that have to be there.
fn fields(root: &Value) -> Vec<Field> {
    let schema = object(root);
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let described = properties.iter().map(|(key, schema)| (key.as_str(), schema.clone()));
    let other = schema.get("additionalProperties").cloned().unwrap_or(Value::Bool(true));
    let others = required.iter().filter(|key| !properties.contains_key(**key)).map(|key| (*key, other.clone()));
    let field = |(key, schema): (&str, Value)| Field { key: key.into(), schema, required: required.contains(&key) };
    described.chain(others).map(field).collect()
}

/// Why calls of a tool cannot be held to its schema where arguments stand one by one, if they cannot: `carries` says of a name whether it can
/// be written. Keywords beside the arguments count for a `strict` tool alone.
pub(super) fn misfit(
    tokenizer: &Tokenizer,
    tool: &ToolSchema,
    strict: bool,
    carries: impl Fn(&str) -> bool,
) -> Option<String> {
    let lark = Lark::new(tokenizer);
    let fields = fields(&tool.parameters);
    if let Some(field) = fields.iter().find(|field| field.required && field.schema == Value::Bool(false)) {
        return Some(format!("no value is allowed for {:?}, which is required", field.key));
    }
    if let Some(field) = fields.iter().find(|field| !carries(&field.key) || !lark.is_plain(&field.key)) {
        return Some(format!(
            "this model's format of calls cannot write an argument called {:?}; rename it",
            field.key
        ));
    }
    let keywords = object(&tool.parameters).as_object()?.keys();
    let unknown = keywords.map(String::as_str).find(|keyword| strict && !FOLLOWED.contains(keyword))?;
    Some(format!(
        "`{unknown}` beside the arguments cannot be enforced in this model's format of calls; leave it or `strict` out"
    ))
}

/// The values that a schema allows, if it lists them; references lead into `root`.
pub(super) fn listed(schema: &Value, root: &Value) -> Option<Vec<Value>> {
    listed_within(schema, root, MAX_LEVELS)
}

fn listed_within(schema: &Value, root: &Value, levels: usize) -> Option<Vec<Value>> {
    if let Some(values) = schema.get("enum") {
        return values.as_array().cloned();
    }
    if let Some(value) = schema.get("const") {
        return Some(vec![value.clone()]);
    }
    if schema["type"] == "null" {
        return Some(vec![Value::Null]);
    }
    let levels = levels.checked_sub(1)?;
    if let Some(to) = referred(schema, root) {
        return listed_within(to, root, levels);
    }
    let choices = schema.get("anyOf").or(schema.get("oneOf"))?.as_array()?;
    let choices: Option<Vec<Vec<Value>>> = choices.iter().map(|choice| listed_within(choice, root, levels)).collect();
    choices.map(|choices| choices.concat())
}
