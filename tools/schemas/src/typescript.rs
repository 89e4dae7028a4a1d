//! Zod schemas, and the types that follow from them.

use crate::section::{Key, Kind, Section};
use std::fmt::Write;

/// The whole file.
pub(crate) fn file(sections: &[Section]) -> String {
    let mut out = String::from(
        "// Written by `cargo run -p schemas -- --write` from the type that reads runtime.yaml. Do not edit.\n\nimport { z } from 'zod';\n",
    );
    for section in sections {
        let Section { name, text, keys, named } = section;
        let object = if named.is_some() { "object" } else { "strictObject" };
        let _ = writeln!(out, "\n/** {text}. */\nexport const {name}Schema = z.{object}({{");
        for key in keys {
            let _ = writeln!(out, "  {}: {},", key.name, schema(key));
        }
        let _ = match named {
            None => writeln!(out, "}});"),
            Some(named) => writeln!(out, "}}).catchall({named}Schema);"),
        };
        let _ = writeln!(
            out,
            "/** {text}: every key, with what is in force. */\nexport type {name} = z.output<typeof {name}Schema>;"
        );
        let _ = writeln!(out, "/** {text}: the keys to set. */\nexport interface {name}Input {{");
        for key in keys {
            let _ = writeln!(out, "  /** {} */\n  {}?: {} | undefined;", comment(key), key.name, input(key));
        }
        if let Some(named) = named {
            // A type of all keys has to hold those with a name of their own too.
            let own: Vec<String> = keys.iter().map(input).collect();
            let all = [vec![format!("{named}Input")], own, vec!["undefined".to_owned()]].concat().join(" | ");
            let _ = writeln!(out, "  /** Every further key is a name. */\n  [name: string]: {all};");
        }
        let _ = writeln!(out, "}}");
    }
    out
}

fn schema(key: &Key) -> String {
    let nullable = if key.nullable { ".nullable()" } else { "" };
    let default = match &key.kind {
        Kind::Section(_) => ".prefault({})".to_owned(),
        _ => format!(".default({})", key.default.to_string().replace('"', "'").replace(',', ", ")),
    };
    format!("{}{nullable}{default}\n    .describe({})", kind(&key.kind), quote(&key.text))
}

/// Comment of a key for editors to show: description, range and default.
fn comment(key: &Key) -> String {
    let range = match &key.kind {
        Kind::Whole(min, Some(max)) => format!(" {min} to {max};"),
        Kind::Number(min, max) => format!(" {min} to {max};"),
        Kind::Section(_) => return format!("{}.", key.text),
        _ => String::new(),
    };
    let default = if range.is_empty() { "Default" } else { "default" };
    format!("{}.{range} {default} `{}`.", key.text, key.default.to_string().replace(',', ", "))
}

/// Type of what a key may be set to.
fn input(key: &Key) -> String {
    let or_null = if key.nullable { " | null" } else { "" };
    format!("{}{or_null}", input_kind(&key.kind))
}

fn input_kind(kind: &Kind) -> String {
    match kind {
        Kind::Boolean => "boolean".to_owned(),
        Kind::Whole(..) | Kind::Number(..) => "number".to_owned(),
        Kind::Text(_) => "string".to_owned(),
        Kind::Choice(words) => format!("'{}'", words.join("' | '")),
        Kind::List(item) => format!("{}[]", input_kind(item)),
        Kind::Section(name) => format!("{name}Input"),
    }
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Boolean => "z.boolean()".to_owned(),
        Kind::Whole(min, max) => {
            let max = max.map(|max| format!(".max({max})")).unwrap_or_default();
            format!("z.number().int().min({min}){max}")
        }
        Kind::Number(min, max) => format!("z.number().min({min}).max({max})"),
        Kind::Text(text) => {
            let min = if text.min_length > 0 { format!(".min({})", text.min_length) } else { String::new() };
            let pattern = text.pattern.as_ref().map(|pattern| format!(".regex(/{pattern}/)")).unwrap_or_default();
            format!("z.string(){min}{pattern}")
        }
        Kind::Choice(words) => format!("z.enum(['{}'])", words.join("', '")),
        Kind::List(item) => format!("z.array({})", self::kind(item)),
        Kind::Section(name) => format!("{name}Schema"),
    }
}

/// A text in single quotes.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
