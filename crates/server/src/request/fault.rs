//! Faults of JSON in the words of those who write it: no word of the parser's, no line and column.

use crate::error::{ApiError, shorten};
use serde_json::Error;
use serde_path_to_error::{Path, Segment};
use std::borrow::Cow;

/// Bytes of the text that an error shows at the place of the fault.
const SHOWN: usize = 20;
/// Mark that some editors and systems put before UTF-8.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The path of a field as errors name it: `messages[0].role`. It is empty for the whole body.
pub(super) fn named(path: &Path) -> String {
    let mut name = String::new();
    for segment in path.iter() {
        let field = match segment {
            Segment::Seq { index } => {
                name += &format!("[{index}]");
                continue;
            }
            Segment::Map { key } | Segment::Enum { variant: key } => key.as_str(),
            // The text broke off in the middle of a key.
            Segment::Unknown => continue,
        };
        if !name.is_empty() {
            name.push('.');
        }
        name += if field.is_empty() { "\"\"" } else { field };
    }
    name
}

/// The error for what was found at `path` while `bytes` were read.
pub(super) fn refused(path: &str, error: &Error, bytes: &[u8]) -> ApiError {
    let subject = if path.is_empty() { "the body".into() } else { shorten(path) };
    let text = bare(error);
    // A field that is not there has no place of its own.
    if let Some(field) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let path = if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
        return ApiError::invalid(param(&path), format!("{} is missing", shorten(&path)));
    }
    if let Some(predicate) = fault(error).filter(|_| !is_cut(error, bytes)) {
        return ApiError::invalid(param(path), format!("{subject} {predicate}"));
    }
    let within = if path.is_empty() { String::new() } else { format!(", in {subject}") };
    ApiError::invalid(param(path), format!("the body is not JSON: {}{within}", place(&text, error, bytes)))
}

/// The fault at `path` of an object, in words that follow the object's name.
pub(super) fn within(path: &str, error: &Error) -> String {
    let text = bare(error);
    if let Some(field) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let path = if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
        return format!("has no {}", shorten(&path));
    }
    let predicate = fault(error).unwrap_or_else(|| "is not JSON".into());
    if path.is_empty() { predicate } else { format!("has a field {} that {predicate}", shorten(path)) }
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
pub(crate) fn bare(error: &Error) -> String {
    let text = error.to_string();
    text.strip_suffix(&format!(" at line {} column {}", error.line(), error.column())).unwrap_or(&text).to_owned()
}

/// The place of a fault and what has to be there.
fn place(text: &str, error: &Error, bytes: &[u8]) -> String {
    if error.is_eof() {
        return match bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes).is_empty() {
            true => "it is empty".into(),
            false => format!("it ends too early, after {} bytes", bytes.len()),
        };
    }
    let at = offset(error, bytes);
    if matches!(text, "lone leading surrogate in hex escape" | "unexpected end of hex escape") {
        let at = surrogate(&bytes[..bytes.len().min(at + 1)]).unwrap_or(at);
        return format!(
            "at byte {at}, where both halves of a surrogate pair have to stand, comes one: {:?}",
            seen(at, bytes)
        );
    }
    let expected = match text {
        _ if error.is_data() => "the number has to end",
        "expected value" | "trailing comma" | "expected `,` or `]`" if at >= bytes.len() => "more has to follow",
        "expected value" => "a value has to begin",
        "expected ident" => "true, false or null has to stand",
        "expected `:`" => "a colon has to stand",
        "expected `,` or `}`" => "a comma or } has to stand",
        "expected `,` or `]`" => "a comma or ] has to stand",
        "trailing comma" => "something has to follow the comma",
        "key must be a string" | "expected `\"`" => "the name of a field in double quotes has to stand",
        "invalid escape" => "an escape that JSON has has to stand",
        "invalid unicode code point" => "whole characters in UTF-8 have to stand",
        "invalid number" => "a number as JSON writes it has to stand",
        "trailing characters" => "nothing may follow the value",
        text if text.starts_with("control character") => "a control character has to be escaped",
        _ => "something else has to stand",
    };
    format!("at byte {at}, where {expected}, comes {:?}", seen(at, bytes))
}

/// The text at the place of a fault.
fn seen(at: usize, bytes: &[u8]) -> Cow<'_, str> {
    let end = bytes.len().min(at + SHOWN);
    String::from_utf8_lossy(&bytes[at.min(end)..end])
}

/// Bytes that the parser has taken when it finds the fault, a mark before the text among them.
fn taken(error: &Error, bytes: &[u8]) -> usize {
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let before = text.split_inclusive(|&byte| byte == b'\n').take(error.line().saturating_sub(1));
    // A line's end is column 0 of the next.
    let line: usize = before.map(<[u8]>::len).sum();
    (bytes.len() - text.len() + line + error.column()).min(bytes.len())
}

/// Bytes before the fault. What is wrong is the last byte that was taken; of a number that goes on, the next.
fn offset(error: &Error, bytes: &[u8]) -> usize {
    taken(error, bytes).saturating_sub(usize::from(!error.is_data()))
}

/// The number that is refused is only the beginning of what stands there, as in `0x1`.
fn is_cut(error: &Error, bytes: &[u8]) -> bool {
    let (number, rest) = bytes.split_at(taken(error, bytes));
    error.is_data()
        && number.last().is_some_and(u8::is_ascii_digit)
        && rest.first().is_some_and(|next| !matches!(next, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n'))
}

/// The place of the last escape of half a surrogate pair.
fn surrogate(bytes: &[u8]) -> Option<usize> {
    let is_half = |escape: &[u8]| matches!(escape, [b'\\', b'u', b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F']);
    bytes.windows(4).rposition(is_half)
}

/// A value that was found, as JSON has it, and its kind.
fn shown(found: &str) -> String {
    let (kind, value) = match found.split_once(' ') {
        Some(("floating", rest)) => ("number", rest.trim_start_matches("point ")),
        Some((kind, value)) => (kind, value),
        None => (found, ""),
    };
    let number = value.trim_matches('`');
    let value = shorten(number);
    match kind {
        "string" => format!("{value}, a string"),
        "boolean" => format!("{value}, a boolean"),
        "integer" | "number" => match number.parse::<f64>() {
            Ok(exact) if number.contains('e') => format!("{exact:e}"),
            _ => value.into_owned(),
        },
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
