//! `str` and `repr`.

use super::arguments::afford;
use super::numbers::number;
use minijinja::value::{ObjectRepr, ValueKind};
use minijinja::{AutoEscape, Error, ErrorKind, Output, State, Value};
use std::fmt::{self, Write};

/// Bytes of a written container that cost one unit of fuel, as in minijinja: walking it takes longer than copying.
const WRITTEN_PER_FUEL: usize = 4;

/// Writes what `{{ value }}` prints.
pub(super) fn write(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if *state.auto_escape() != AutoEscape::None {
        return minijinja::escape_formatter(out, state, value);
    }
    let written = match value.as_str() {
        Some(text) => out.write_str(text),
        None => out.write_str(&str(state, value)?),
    };
    written.map_err(unwritten)
}

/// `str(value)`; nothing for what is undefined.
pub(super) fn str(state: &State, value: &Value) -> Result<String, Error> {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, ValueKind::Number) => Ok(number(value)),
        (None, ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) => {
            let mut writer = Writer { state, out: String::new() };
            writer.repr(value)?;
            state.consume_fuel((writer.out.len() / WRITTEN_PER_FUEL) as u64)?;
            Ok(writer.out)
        }
        _ => Ok(value.to_string()),
    }
}

/// White space as `str.isspace` knows it.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

struct Writer<'a, 'template, 'env> {
    state: &'a State<'template, 'env>,
    out: String,
}

impl Writer<'_, '_, '_> {
    /// The depth of values is bounded where they are built.
    fn repr(&mut self, value: &Value) -> Result<(), Error> {
        // Parts may be shared, so the text can be far longer than the value.
        afford(self.state, self.out.len() + value.as_str().map_or(0, str::len))?;
        match (value.as_str(), value.as_object()) {
            (Some(text), _) => self.quoted(text).map_err(unwritten),
            (None, Some(object)) => match object.repr() {
                ObjectRepr::Map => self.map(value),
                ObjectRepr::Seq | ObjectRepr::Iterable => self.list(value),
                _ => write!(self.out, "{value}").map_err(unwritten),
            },
            (None, None) if value.is_undefined() => self.out.write_str("Undefined").map_err(unwritten),
            (None, None) if value.kind() == ValueKind::Number => {
                self.out += &number(value);
                Ok(())
            }
            (None, None) => write!(self.out, "{value}").map_err(unwritten),
        }
    }

    fn list(&mut self, list: &Value) -> Result<(), Error> {
        let (open, close) = if list.is_tuple() { ('(', ')') } else { ('[', ']') };
        self.out.push(open);
        let mut count = 0;
        for item in list.try_iter()? {
            if count > 0 {
                self.out.push_str(", ");
            }
            self.repr(&item)?;
            count += 1;
        }
        if count == 1 && list.is_tuple() {
            self.out.push(',');
        }
        self.out.push(close);
        Ok(())
    }

    fn map(&mut self, map: &Value) -> Result<(), Error> {
        self.out.push('{');
        for (i, key) in map.try_iter()?.enumerate() {
            if i > 0 {
                self.out.push_str(", ");
            }
            self.repr(&key)?;
            self.out.push_str(": ");
            self.repr(&map.get_item(&key)?)?;
        }
        self.out.push('}');
        Ok(())
    }

    /// Quotes that the text does not need itself, and escapes for what cannot be seen.
    fn quoted(&mut self, text: &str) -> fmt::Result {
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        self.out.push(quote);
        for c in text.chars() {
            match c {
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\\' => self.out.push_str("\\\\"),
                c if c == quote => {
                    self.out.push('\\');
                    self.out.push(c);
                }
                c if is_printable(c) => self.out.push(c),
                c => match c as u32 {
                    code @ ..=0xff => write!(self.out, "\\x{code:02x}")?,
                    code @ ..=0xffff => write!(self.out, "\\u{code:04x}")?,
                    code => write!(self.out, "\\U{code:08x}")?,
                },
            }
        }
        self.out.push(quote);
        Ok(())
    }
}

/// `str.isprintable`: Rust escapes the same categories, and besides them marks at the beginning of a text.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    let mut buffer = ['a'; 2];
    buffer[1] = c;
    let text: String = buffer.iter().collect();
    text.escape_debug().nth(1) != Some('\\')
}

fn unwritten(_: fmt::Error) -> Error {
    Error::new(ErrorKind::WriteFailure, "the text could not be written")
}
