//! Regular expressions of JSON Schema, which are JavaScript's, as Rust writes them.

use super::Place;
use crate::error::GrammarError;
use crate::expression;

/// Bytes of an expression at most; llguidance takes the square of some for time.
const MAX_BYTES: usize = 4 << 10;

/// The same expression in Rust's notation, if it is one.
pub(super) fn translate(source: &str, at: &Place) -> Result<String, GrammarError> {
    let fault = |reason: &str| at.fault(format!("the regular expression /{source}/ is not supported: {reason}"));
    if source.len() > MAX_BYTES {
        return Err(at.fault(format!("a regular expression of more than {MAX_BYTES} bytes")));
    }
    let translated = classes(source).map_err(fault)?;
    expression::check(&translated, true).map_err(|reason| fault(&reason))?;
    Ok(translated)
}

/// Escapes what has a meaning within a class in Rust alone: `[`, `&&`, `~~`.
fn classes(source: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(source.len());
    let (mut chars, mut inside) = (source.chars().peekable(), false);
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                out.push(c);
                out.extend(chars.next());
                continue;
            }
            '[' if !inside => {
                inside = true;
                out.push(c);
                if chars.peek() == Some(&'^') {
                    out.extend(chars.next());
                }
                if chars.peek() == Some(&']') {
                    return Err("a class has no characters");
                }
                continue;
            }
            ']' => inside = false,
            '-' if inside && chars.peek() == Some(&'-') => return Err("write `\\-` for a hyphen within a class"),
            '[' | '&' | '~' if inside => out.push('\\'),
            _ => {}
        }
        out.push(c);
    }
    Ok(out)
}
