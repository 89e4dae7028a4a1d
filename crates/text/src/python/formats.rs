//! `%` and `str.format`: minijinja's, for values whose texts are Python's and whose sizes were checked.

use super::arguments::{afford, invalid};
use super::text::str;
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::Kwargs;
use minijinja::{Error, State, Value};

/// Largest width or precision.
const MAX_WIDTH: usize = 10_000;

/// `format % values`
pub(super) fn printf(state: &State, text: &str, values: Vec<Value>) -> Result<Value, Error> {
    formatted(state, FormatStyle::Printf, text, values)
}

/// `format.format(*values)`
pub(super) fn braces(state: &State, text: &str, values: Vec<Value>) -> Result<Value, Error> {
    formatted(state, FormatStyle::StrFormat, text, values)
}

fn formatted(state: &State, style: FormatStyle, text: &str, values: Vec<Value>) -> Result<Value, Error> {
    // Parts of a value, `{0[a]}`, are taken from the value itself.
    let keep = style == FormatStyle::StrFormat && text.contains(['[', '.']);
    let mut longest = 0;
    let mut plain = |value: Value| -> Result<Value, Error> {
        if value.as_object().is_none() {
            longest = longest.max(value.as_str().map_or(0, str::len));
            return Ok(value);
        }
        let text = str(state, &value)?;
        longest = longest.max(text.len());
        Ok(if keep { value } else { Value::from(text) })
    };
    let mut ready = Vec::with_capacity(values.len());
    for value in values {
        ready.push(match value.is_kwargs() {
            false => plain(value)?,
            true => {
                let named = Kwargs::try_from(value)?;
                let named: Result<Kwargs, Error> =
                    named.args().map(|name| Ok((name.to_owned(), plain(named.get(name)?)?))).collect();
                Value::from(named?)
            }
        });
    }
    let fields = text.matches(['%', '{']).count();
    afford(state, text.len().saturating_add(widths(text)?).saturating_add(fields.saturating_mul(longest.max(64))))?;
    state.consume_fuel((fields + ready.len()) as u64)?;
    format(style, text, &ready).map(Value::from)
}

/// All numbers in a format together; not all of them are widths.
fn widths(text: &str) -> Result<usize, Error> {
    let mut sum = 0_usize;
    for digits in text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()) {
        let width: Option<usize> = digits.parse().ok().filter(|&width| width <= MAX_WIDTH);
        sum += width.ok_or_else(|| invalid(format!("a format has the number {digits:.20}, more than {MAX_WIDTH}")))?;
    }
    Ok(sum)
}
