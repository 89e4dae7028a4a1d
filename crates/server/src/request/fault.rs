//! Faults of JSON in the words of those who write it: no word of the parser's, no line and column.

use crate::error::{ApiError, shorten};
use serde_json::Error;

/// Bytes of the text that an error shows at the place of the fault.
const SHOWN: usize = 20;

/// The error for what was found at `path` while `bytes` were read.
pub(super) fn refused(path: &str, error: &Error, bytes: &[u8]) -> ApiError {
    let subject = if path.is_empty() { "the body".into() } else { shorten(path) };
    let text = bare(error);
    // A field that is not there has no place of its own.
    if let Some(field) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let path = if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
        return ApiError::invalid(param(&path), format!("{} is missing", shorten(&path)));
    }
    if let Some(predicate) = fault(error) {
        return ApiError::invalid(param(path), format!("{subject} {predicate}"));
    }
    let within = if path.is_empty() { String::new() } else { format!(", in {subject}") };
    ApiError::invalid(param(path), format!("the body is not JSON: {}{within}", place(&text, error, bytes)))
}

/// Fault of a value in words that follow its name; `None` if the text is no JSON.
pub(crate) fn fault(error: &Error) -> Option<String> {
    let text = bare(error);
    if text == "number out of range" {
        return Some("is a number too large to be held".into());
    }
    if text == "recursion limit exceeded" {
        return Some("nests lists and objects too deeply".into());
    }
    if !error.is_data() {
        return None;
    }
    let typed = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    let Some((found, expected)) = typed.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return Some(shorten(&text).into_owned());
    };
    Some(format!("is {}; it has to be {}", shown(found), plain(expected)))
}

/// The parser's text without the place, which it counts in lines.
fn bare(error: &Error) -> String {
    let text = error.to_string();
    text.strip_suffix(&format!(" at line {} column {}", error.line(), error.column())).unwrap_or(&text).to_owned()
}

/// The place of a fault and what has to be there.
fn place(text: &str, error: &Error, bytes: &[u8]) -> String {
    if error.is_eof() {
        return match bytes.is_empty() {
            true => "it is empty".into(),
            false => format!("it ends too early, after {} bytes", bytes.len()),
        };
    }
    let at = offset(error, bytes);
    let expected = match text {
        "expected value" | "trailing comma" | "expected `,` or `]`" if at >= bytes.len() => "more has to follow",
        "expected value" => "a value has to begin",
        "expected ident" => "true, false or null has to stand",
        "expected `:`" => "a colon has to stand",
        "expected `,` or `}`" => "a comma or } has to stand",
        "expected `,` or `]`" => "a comma or ] has to stand",
        "trailing comma" => "something has to follow the comma",
        "key must be a string" | "expected `\"`" => "the name of a field in double quotes has to stand",
        "invalid escape" | "unexpected end of hex escape" => "an escape that JSON has has to stand",
        "lone leading surrogate in hex escape" | "invalid unicode code point" => {
            "whole characters in UTF-8 have to stand"
        }
        "invalid number" => "a number as JSON writes it has to stand",
        "trailing characters" => "nothing may follow the value",
        text if text.starts_with("control character") => "a control character has to be escaped",
        _ => "something else has to stand",
    };
    let end = bytes.len().min(at + SHOWN);
    let seen = String::from_utf8_lossy(&bytes[at.min(end)..end]);
    format!("at byte {at}, where {expected}, comes {:?}", seen)
}

/// Bytes before the fault.
fn offset(error: &Error, bytes: &[u8]) -> usize {
    let before = bytes.split_inclusive(|&byte| byte == b'\n').take(error.line().saturating_sub(1));
    let line: usize = before.map(<[u8]>::len).sum();
    (line + error.column().saturating_sub(1)).min(bytes.len())
}

/// A value that was found, as JSON has it, and its kind.
fn shown(found: &str) -> String {
    let (kind, value) = match found.split_once(' ') {
        Some(("floating", rest)) => ("number", rest.trim_start_matches("point ")),
        Some((kind, value)) => (kind, value),
        None => (found, ""),
    };
    let value = shorten(value.trim_matches('`'));
    match kind {
        "string" => format!("{value}, a string"),
        "boolean" => format!("{value}, a boolean"),
        "integer" | "number" => value.into_owned(),
        "sequence" => "a list".into(),
        "map" => "an object".into(),
        _ => shorten(found).into_owned(),
    }
}

/// A wanted kind of value in JSON's words.
fn plain(wanted: &str) -> &str {
    match wanted {
        "f32" => "a number",
        "i64" => "a whole number",
        "u32" | "usize" => "a whole number of at least 0",
        "sequence" | "a sequence" => "a list",
        "map" | "a map" => "an object",
        "a boolean" => "true or false",
        other => other,
    }
}

/// The field to blame: entries of a list have no name of their own.
fn param(mut path: &str) -> String {
    while path.ends_with(']')
        && let Some((list, _)) = path.rsplit_once('[')
    {
        path = list;
    }
    shorten(path).into_owned()
}

#[cfg(test)]
mod tests;
