//! Calls of Gemma 4: `call:NAME{key:value}`.

use super::lark::{Field, Lark};
use crate::output::loose::{Loose, Notation};
use crate::output::sink::Sink;
use crate::output::step::{Expect, Garbled, Step};
use crate::output::tools::ToolSchema;

pub(super) const OPEN: &str = "<|tool_call>";
pub(super) const CLOSE: &str = "<tool_call|>";
/// Mark on either side of a string.
pub(super) const QUOTE: &str = "<|\"|>";
/// Text before a name.
const CALL: &str = "call:";
/// Bytes of a name at most.
const MAX_NAME: usize = 512;

/// Reads one call, or several between the same markers.
#[derive(Debug, Clone)]
pub(in crate::output) enum Call {
    Begin(Expect),
    Name(String),
    Arguments(Box<Loose>),
    Close(Expect),
}

impl Call {
    pub(super) fn new() -> Self {
        Self::Begin(Expect(CALL))
    }

    pub(super) fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, Garbled> {
        let space = c.is_ascii_whitespace();
        match self {
            Self::Begin(Expect(CALL)) | Self::Close(Expect(CLOSE)) if space => {}
            Self::Begin(begin) => {
                if begin.push(c)? {
                    *self = Self::Name(String::new());
                }
            }
            Self::Name(name) => match c {
                '{' if !name.is_empty() => {
                    sink.call(std::mem::take(name));
                    *self = Self::Arguments(Box::new(Loose::new(Notation::Marked(QUOTE))));
                    return self.push(c, sink);
                }
                _ if space || "<>{}()\"',".contains(c) || name.len() >= MAX_NAME => return Err(Garbled),
                _ => name.push(c),
            },
            Self::Arguments(arguments) => {
                let mut json = String::new();
                let step = arguments.push(c, &mut json);
                sink.arguments(&json);
                if step? == Step::Done {
                    *self = Self::Close(Expect(CLOSE));
                }
            }
            Self::Close(Expect(CLOSE)) if c == 'c' => {
                *self = Self::new();
                return self.push(c, sink);
            }
            Self::Close(close) => {
                if close.push(c)? {
                    return Ok(Step::Done);
                }
            }
        }
        Ok(Step::More)
    }

    /// True if the call is whole, whether or not the model closes it.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Self::Close(Expect(CLOSE)))
    }
}

/// True if a name of an argument can be written.
pub(super) fn carries(key: &str) -> bool {
    let plain = |c: char| !(c.is_control() || ",:[]{}()=<\"'".contains(c));
    !key.is_empty() && key.len() <= MAX_NAME && key.trim() == key && key.chars().all(plain)
}

/// A call as Lark, without its markers. Strings, numbers and words are held to their types, lists and objects to the notation alone.
pub(super) fn lark(lark: &mut Lark<'_>, tool: &ToolSchema) -> String {
    let mut fields = Vec::new();
    for Field { key, schema, required } in lark.fields(tool, carries) {
        let value = lark.marked(tool, &schema, QUOTE);
        fields.push((format!("{} {value}", lark.text(&format!("{key}:"))), required));
    }
    let fields = lark.separated(fields, ",");
    format!("{} {fields} {}", lark.text(&format!("{CALL}{}{{", tool.name)), lark.text("}"))
}
