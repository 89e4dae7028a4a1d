//! Grammars of forced calls, in llguidance's dialect of Lark.

use crate::output::json::quoted;
use crate::output::tools::{ToolSchema, Types};
use crate::tokenizer::Tokenizer;
use serde_json::{Map, Value};
use std::fmt::Write;

/// Keys of a schema's root to which references in its properties lead.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];
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

    /// Any text up to a marker, and the marker.
    pub(super) fn until(&mut self, marker: &str) -> String {
        let behind = self.text(marker);
        match behind.contains("<[") {
            // No text runs across a special token.
            true => format!("{} {behind}", self.rule("", TEXT)),
            false => self.rule(&format!("[suffix={behind}]"), TEXT),
        }
    }

    /// Any text in which the marker does not come.
    pub(super) fn without(&mut self, marker: &str) -> String {
        let marker = self.text(marker);
        match marker.contains("<[") {
            true => self.rule("", TEXT),
            false => {
                // A name in capitals is one expression, and only those can be taken from each other.
                let name = format!("T{}", self.count);
                self.count += 1;
                let _ = writeln!(self.rules, "{name}: {TEXT} & ~({TEXT} {marker} {TEXT})");
                name
            }
        }
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

    /// A value whose markup has no types, up to its end: text as it is, anything else as JSON.
    pub(super) fn value(&mut self, tool: &ToolSchema, schema: &Value, end: &str) -> String {
        if !Types::in_schema(schema).is_text() {
            return format!("{} {}", self.json(tool, schema), self.text(end));
        }
        let behind = self.text(end);
        if let Some(choices) = texts(schema) {
            let choices: Vec<String> = choices.iter().map(|text| quoted(text)).collect();
            return format!("{} {behind}", self.any(&choices));
        }
        self.until(end)
    }

    /// A value in Gemma's notation, strings between two `quote`s.
    pub(super) fn marked(&mut self, schema: &Value, quote: &str) -> String {
        let (behind, quote) = (quote, self.text(quote));
        let types = Types::in_schema(schema);
        if let (true, Some(choices)) = (types.is_text(), texts(schema)) {
            let choices: Vec<String> = choices.iter().map(|text| quoted(text)).collect();
            return format!("{quote} {} {quote}", self.any(&choices));
        }
        let text = format!("{quote} {}", self.until(behind));
        if types.is_text() {
            return self.rule("", &text);
        }
        if types.is_scalar() {
            return self.rule("", &format!("%json {schema}"));
        }
        if !self.rules.contains("\nany:") {
            let number = "%json {\"type\": [\"number\", \"boolean\", \"null\"]}";
            let _ = write!(
                self.rules,
                "\nany: any_text | any_number | any_list | any_object\nany_text: {text}\nany_number: {number}\n\
                 any_list: \"[\" (any (\",\" any)*)? \"]\"\nany_object: \"{{\" (any_field (\",\" any_field)*)? \"}}\"\n\
                 any_field: /[^:,{{}}\\[\\]]+/ \":\" any\n"
            );
        }
        let text = if types.admits(Types::TEXT) { "any_text | " } else { "" };
        self.rule("", &format!("{text}any_list | any_object"))
    }

    /// Arguments of a tool: name, schema, and true for those that have to be there.
    pub(super) fn properties(&self, tool: &ToolSchema) -> Vec<(String, Value, bool)> {
        let required: Vec<&str> =
            tool.parameters["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let none = Map::new();
        let properties = tool.parameters["properties"].as_object().unwrap_or(&none);
        properties.iter().map(|(key, schema)| (key.clone(), schema.clone(), required.contains(&key.as_str()))).collect()
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

/// The texts that a schema of texts allows, if it lists them.
fn texts(schema: &Value) -> Option<Vec<&str>> {
    match (&schema["enum"], &schema["const"]) {
        (Value::Array(values), _) => {
            values.iter().map(Value::as_str).collect::<Option<Vec<_>>>().filter(|texts| !texts.is_empty())
        }
        (_, Value::String(text)) => Some(vec![text]),
        _ => None,
    }
}
