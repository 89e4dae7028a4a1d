//! Typed dictionaries.

use crate::section::{Key, Kind, Section};
use serde_json::Value;
use std::fmt::Write;

/// The whole file.
pub(crate) fn file(sections: &[Section]) -> String {
    let mut out = String::from(
        "\"\"\"Types of the configuration: the keys of runtime.yaml, all of them optional.\n\n\
         Written by `cargo run -p schemas -- --write` from the type that reads runtime.yaml. Do not edit.\n\"\"\"\n\n\
         from typing import Literal, TypedDict\n",
    );
    for section in sections {
        let _ =
            writeln!(out, "\n\nclass {}(TypedDict, total=False):\n    \"\"\"{}.\"\"\"\n", section.name, section.text);
        for key in &section.keys {
            let or_none = if key.nullable { " | None" } else { "" };
            let _ = writeln!(out, "    # {}\n    {}: {}{or_none}", comment(key), key.name, kind(&key.kind));
        }
        if let Some(named) = &section.named {
            let _ = writeln!(
                out,
                "    # Every further key is a name, and holds a {named}: typed dictionaries cannot say so."
            );
        }
    }
    out
}

/// Comment of a key: description, range and default.
fn comment(key: &Key) -> String {
    let range = match &key.kind {
        Kind::Whole(min, Some(max)) => format!(" {min} to {max};"),
        Kind::Number(min, max) => format!(" {min} to {max};"),
        Kind::List(item) => match &**item {
            Kind::Whole(min, Some(max)) => format!(" Each {min} to {max};"),
            _ => String::new(),
        },
        Kind::Section(_) => return format!("{}.", key.text),
        _ => String::new(),
    };
    let default = match &key.default {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => other.to_string().replace(',', ", "),
    };
    let default = if range.is_empty() { format!(" Default {default}") } else { format!("{range} default {default}") };
    format!("{}.{default}.", key.text)
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Boolean => "bool".to_owned(),
        Kind::Whole(..) => "int".to_owned(),
        Kind::Number(..) => "float".to_owned(),
        Kind::Text(_) => "str".to_owned(),
        Kind::Choice(words) => format!("Literal[\"{}\"]", words.join("\", \"")),
        Kind::List(item) => format!("list[{}]", self::kind(item)),
        Kind::Section(name) => name.clone(),
    }
}
