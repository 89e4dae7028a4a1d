//! Grammars in the notation of Lark: what to refuse before llguidance reads them, and how to write one.

use crate::error::GrammarError;
use crate::schema;
use crate::structure::Structure;
use llguidance::regex_to_lark;
use serde_json::Value;

/// Bytes of a grammar, its schemas left out.
const MAX_BYTES: usize = 64 << 10;
/// Marker before a schema in a grammar.
const JSON: &str = "%json";

/// Brackets within brackets. llguidance goes down one function deeper for each.
const MAX_NESTING: usize = 100;

/// Attributes of rules that would have no effect here: text that is generated and then taken back, and sampling parameters.
const WITHOUT_EFFECT: [&str; 3] = ["stop", "stop_capture", "temperature"];

/// A grammar in the form that llguidance takes: its schemas are, and it has nothing that llguidance would ignore, or that would cost it
/// its stack.
pub(crate) fn supported(lark: &str) -> Result<String, GrammarError> {
    let fault = |line: usize, message: String| Err(GrammarError::structure(format!("grammar, line {line}: {message}")));
    let (mut out, mut line, mut nesting, mut word) = (String::with_capacity(lark.len()), 1, 0usize, String::new());
    let (mut rest, mut schemas) = (lark, 0);
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '"' | '/' if !rest.starts_with("//") => quoted(rest, c),
            '/' | '#' => rest.find('\n').unwrap_or(rest.len()),
            '%' if rest.starts_with(JSON) => {
                let mut values = serde_json::Deserializer::from_str(&rest[JSON.len()..]).into_iter::<Value>();
                let schema = match values.next() {
                    Some(Ok(schema)) => schema,
                    Some(Err(error)) => {
                        return fault(line, format!("`{JSON}` is followed by what is not JSON: {error}"));
                    }
                    None => return fault(line, format!("`{JSON}` is followed by nothing")),
                };
                let length = JSON.len() + values.byte_offset();
                out.push_str(JSON);
                out.push(' ');
                let before = out.len();
                out.push_str(&schema::supported(&schema)?.to_string());
                schemas += out.len() - before;
                line += rest[..length].matches('\n').count();
                rest = &rest[length..];
                continue;
            }
            c => c.len_utf8(),
        };
        match c {
            '\n' => line += 1,
            '(' | '[' | '{' => nesting += 1,
            ')' | ']' | '}' => nesting = nesting.saturating_sub(1),
            '=' if nesting > 0 && WITHOUT_EFFECT.contains(&word.as_str()) => {
                return fault(
                    line,
                    format!("`{word}` is not supported; a rule may have `lazy`, `suffix` and `max_tokens`"),
                );
            }
            _ => {}
        }
        if out.len() - schemas > MAX_BYTES {
            return fault(line, format!("more than {} KiB beside its schemas", MAX_BYTES >> 10));
        }
        if nesting > MAX_NESTING {
            return fault(line, format!("more than {MAX_NESTING} brackets within each other"));
        }
        match c {
            'a'..='z' | 'A'..='Z' | '_' => word.push(c),
            ' ' | '\t' => {}
            _ => word.clear(),
        }
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    Ok(out)
}

/// Bytes of a text or an expression at the beginning, which no line goes beyond.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return at,
            c if c == quote && !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// A text as a literal.
#[must_use]
pub fn literal(text: &str) -> String {
    // JSON's notation, but for a character that JSON may leave as it is.
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A structure as the body of a rule; `None` for a grammar, which has rules of its own.
#[must_use]
pub fn body(structure: &Structure) -> Option<String> {
    match structure {
        Structure::Object => Some(format!("{JSON} {{\"type\": \"object\"}}")),
        Structure::Schema(schema) => Some(format!("{JSON} {schema}")),
        Structure::Regex(regex) => Some(format!("/{}/", regex_to_lark(regex, ""))),
        Structure::Choice(texts) => {
            let literals: Vec<String> = texts.iter().map(|text| literal(text)).collect();
            Some(literals.join(" | "))
        }
        Structure::Lark(_) => None,
    }
}

/// A grammar of some texts.
pub(crate) fn choice(texts: &[String]) -> String {
    let literals: Vec<String> = texts.iter().map(|text| literal(text)).collect();
    // One expression: as rules, each text would be a state of the parser of its own.
    format!("start: CHOICE\nCHOICE: {}\n", literals.join(" | "))
}
