//! Calls of Mistral: behind `[TOOL_CALLS]` a name and its arguments, or, of older models, a list of objects.

use super::json::Objects;
use super::lark::Lark;
use crate::output::sink::Sink;
use crate::output::step::{Garbled, Step};
use crate::output::tools::{Arguments, ToolSchema};

/// Marker before every call, or before the list.
pub(super) const OPEN: &str = "[TOOL_CALLS]";
/// Marker before a call's arguments.
pub(super) const ARGS: &str = "[ARGS]";
/// Marker before a call's id, which some models write behind the name.
pub(super) const CALL_ID: &str = "[CALL_ID]";
/// Bytes of a name or an id at most.
const MAX_NAME: usize = 512;

/// Reads one call, or a list of them.
#[derive(Debug, Clone)]
pub(in crate::output) enum Call {
    /// The form is not known yet.
    Start,
    List(Objects),
    Name(String),
    /// Behind the name, in a marker.
    Marker(String, String),
    Id(String, String),
    Arguments(String, Arguments),
}

impl Call {
    pub(super) fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, Garbled> {
        let space = c.is_ascii_whitespace();
        match self {
            Self::Start if space => {}
            Self::Start if matches!(c, '[' | '{') => {
                let mut list = Objects::new("", false);
                list.push(c, sink)?;
                *self = Self::List(list);
            }
            Self::Start => *self = Self::Name(c.into()),
            Self::List(list) => return list.push(c, sink),
            Self::Name(name) => match c {
                '[' => *self = Self::Marker(std::mem::take(name), "[".into()),
                '{' => return self.arguments(c, sink),
                _ if name.len() >= MAX_NAME || "<>\"'=,".contains(c) => return Err(Garbled),
                _ => name.push(c),
            },
            Self::Marker(name, seen) => {
                seen.push(c);
                match seen.as_str() {
                    ARGS => *self = Self::Arguments(std::mem::take(name), Arguments::default()),
                    CALL_ID => *self = Self::Id(std::mem::take(name), String::new()),
                    seen if ARGS.starts_with(seen) || CALL_ID.starts_with(seen) => {}
                    _ => return Err(Garbled),
                }
            }
            Self::Id(name, id) => match c {
                '[' => *self = Self::Marker(std::mem::take(name), "[".into()),
                _ if id.len() >= MAX_NAME => return Err(Garbled),
                _ => id.push(c),
            },
            Self::Arguments(..) => return self.arguments(c, sink),
        }
        Ok(Step::More)
    }

    /// True if a list has ended; a call ends with its arguments.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Self::List(list) if list.is_whole())
    }

    fn arguments(&mut self, c: char, sink: &mut Sink) -> Result<Step, Garbled> {
        if let Self::Name(name) = self {
            *self = Self::Arguments(std::mem::take(name), Arguments::default());
        }
        let Self::Arguments(name, arguments) = self else { return Err(Garbled) };
        let called = std::cell::Cell::new(name.is_empty());
        arguments.push(c, |text| {
            if !called.replace(true) {
                sink.call(std::mem::take(name).trim().to_owned());
            }
            sink.arguments(text);
        })
    }
}

/// A call as Lark, behind its marker.
pub(super) fn lark(lark: &mut Lark<'_>, tool: &ToolSchema) -> String {
    format!("{} {}", lark.text(&format!("{}{ARGS}", tool.name)), lark.arguments(tool))
}
