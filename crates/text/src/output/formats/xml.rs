//! Calls with tags around each argument: Qwen3-Coder's and GLM's.

use super::lark::{Field, LINE, Lark, listed};
use crate::output::json::quoted;
use crate::output::sink::Sink;
use crate::output::step::{Expect, Garbled, Step, Until};
use crate::output::tools::{Argument, ToolSchema, Types};
use std::sync::Arc;

/// Bytes of a name or a key at most.
const MAX_NAME: usize = 512;

/// A parameter, or the end of a call, at the beginning of a line.
const NEXT_PARAMETER: &str = "\n<parameter=";
const END_OF_FUNCTION: &str = "\n</function>";

/// Texts around the parts of a call. Space between them means nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tags {
    /// Before a name, which `>` ends then; without it the name ends before a space or a tag.
    begin: &'static str,
    key: &'static str,
    key_end: &'static str,
    /// Between the end of a key and its value, if anything.
    value: &'static str,
    value_end: &'static str,
    /// What ends a value whose own end is missing.
    value_cut: &'static [&'static str],
    end: &'static str,
    /// Behind the call, where `end` is not that already.
    close: &'static str,
    /// A line feed on either side of a value is markup.
    lines: bool,
    /// Types of an argument that no schema describes.
    unknown: Types,
}

/// Qwen3-Coder, Qwen3.5 and later.
pub(super) static QWEN: Tags = Tags {
    begin: "<function=",
    key: "<parameter=",
    key_end: ">",
    value: "",
    value_end: "</parameter>",
    value_cut: &[NEXT_PARAMETER, END_OF_FUNCTION],
    end: "</function>",
    close: "</tool_call>",
    lines: true,
    unknown: Types::TEXT,
};

/// GLM 4.5 and later.
pub(super) static GLM: Tags = Tags {
    begin: "",
    key: "<arg_key>",
    key_end: "</arg_key>",
    value: "<arg_value>",
    value_end: "</arg_value>",
    value_cut: &[],
    end: "</tool_call>",
    close: "",
    lines: false,
    unknown: Types::ANY,
};

/// Reads one call, or several between the same markers.
#[derive(Debug, Clone)]
pub(in crate::output) struct Tagged {
    tags: &'static Tags,
    tools: Arc<[ToolSchema]>,
    /// The marker of the call was its own beginning, so that nothing has to close it.
    bare: bool,
    name: String,
    keys: Vec<String>,
    at: At,
}

#[derive(Debug, Clone)]
enum At {
    /// Before the call.
    Begin(Expect),
    Name,
    /// Before a key or the end; what has come of the tag.
    Tag(String),
    Key(Until, String),
    /// Between a key and its value.
    Between(Expect),
    Value(Box<Value>),
    /// Behind the call; what has come of the tag.
    Close(String),
}

#[derive(Debug, Clone)]
struct Value {
    end: Until,
    argument: Argument,
    /// A line feed at the beginning is markup.
    first: bool,
    /// A line feed has come that is markup if the value ends here.
    line: bool,
}

impl Tagged {
    /// A reader of what comes after `marker`.
    pub(super) fn new(tags: &'static Tags, tools: &Arc<[ToolSchema]>, marker: &str) -> Self {
        let bare = marker == tags.begin;
        let at = if bare || tags.begin.is_empty() { At::Name } else { At::Begin(Expect(tags.begin)) };
        Self { tags, tools: tools.clone(), bare, name: String::new(), keys: Vec::new(), at }
    }

    pub(super) fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, Garbled> {
        let (tags, space) = (self.tags, c.is_ascii_whitespace());
        match &mut self.at {
            At::Begin(begin) => {
                let untouched = begin.0 == tags.begin;
                if !(space && untouched) && begin.push(c)? {
                    self.at = At::Name;
                }
            }
            At::Name if tags.begin.is_empty() && self.name.is_empty() && space => {}
            At::Name if c == '>' && !tags.begin.is_empty() => self.begin(sink)?,
            At::Name if tags.begin.is_empty() && (space || c == '<') => {
                self.begin(sink)?;
                return self.push(c, sink);
            }
            At::Name if space || "<>{}()\"'=,".contains(c) || self.name.len() >= MAX_NAME => return Err(Garbled),
            At::Name => self.name.push(c),
            At::Tag(seen) => match tag(seen, c, [tags.key, tags.end])? {
                Some(0) => self.at = self.key(),
                Some(_) => return Ok(self.end(sink)),
                None => {}
            },
            At::Key(end, key) => {
                if end.push(c, |c| key.push(c)).is_some() {
                    let key = key.trim().to_owned();
                    self.begin_value(key, sink)?;
                } else if key.len() > MAX_NAME {
                    return Err(Garbled);
                }
            }
            At::Between(value) => {
                let untouched = value.0 == tags.value;
                if !(space && untouched) && value.push(c)? {
                    self.at = self.value();
                }
            }
            At::Value(value) => {
                if let Some(end) = value.push(c, tags.lines, sink) {
                    let At::Value(value) = std::mem::replace(&mut self.at, At::Tag(String::new())) else {
                        return Err(Garbled);
                    };
                    value.argument.finish(sink)?;
                    match end {
                        NEXT_PARAMETER => self.at = self.key(),
                        END_OF_FUNCTION => return Ok(self.end(sink)),
                        _ => {}
                    }
                }
            }
            At::Close(seen) => match tag(seen, c, [tags.close, tags.begin])? {
                Some(0) => return Ok(Step::Done),
                Some(_) => (self.name, self.keys, self.at) = (String::new(), Vec::new(), At::Name),
                None => {}
            },
        }
        Ok(Step::More)
    }

    /// True if the call is whole, whether or not the model closes it.
    pub(super) fn is_whole(&self) -> bool {
        matches!(&self.at, At::Close(seen) if seen.is_empty())
    }

    fn begin(&mut self, sink: &mut Sink) -> Result<(), Garbled> {
        if self.name.is_empty() {
            return Err(Garbled);
        }
        sink.call(self.name.clone());
        self.at = At::Tag(String::new());
        Ok(())
    }

    fn begin_value(&mut self, key: String, sink: &mut Sink) -> Result<(), Garbled> {
        if key.is_empty() || self.keys.contains(&key) {
            return Err(Garbled);
        }
        sink.arguments(if self.keys.is_empty() { "{" } else { ", " });
        sink.arguments(&quoted(&key));
        sink.arguments(": ");
        self.keys.push(key);
        self.at = if self.tags.value.is_empty() { self.value() } else { At::Between(Expect(self.tags.value)) };
        Ok(())
    }

    fn key(&self) -> At {
        At::Key(Until::new(self.tags.key_end), String::new())
    }

    fn value(&self) -> At {
        let key = self.keys.last().map_or("", String::as_str);
        let types = Types::of(&self.tools, &self.name, key, self.tags.unknown);
        let end = Until::any(self.tags.value_end, self.tags.value_cut);
        At::Value(Box::new(Value { end, argument: Argument::new(types), first: true, line: false }))
    }

    fn end(&mut self, sink: &mut Sink) -> Step {
        sink.arguments(if self.keys.is_empty() { "{}" } else { "}" });
        self.at = At::Close(String::new());
        if self.bare || self.tags.close.is_empty() { Step::Done } else { Step::More }
    }
}

impl Value {
    /// What ends the value, once it is whole.
    fn push(&mut self, c: char, lines: bool, sink: &mut Sink) -> Option<&'static str> {
        let Self { end, argument, first, line } = self;
        let ended = end.push(c, |c| {
            let markup = lines && c == '\n';
            if !(markup && *first) {
                if std::mem::replace(line, markup) {
                    argument.push('\n', sink);
                }
                if !markup {
                    argument.push(c, sink);
                }
            }
            *first = false;
        });
        // The line feed that is markup belongs to what cuts the value off.
        if *line && ended.is_some_and(|end| end.starts_with('\n')) {
            argument.push('\n', sink);
        }
        ended
    }
}

/// The index of the tag that is whole now; space before it means nothing.
fn tag(seen: &mut String, c: char, tags: [&str; 2]) -> Result<Option<usize>, Garbled> {
    if seen.is_empty() && c.is_ascii_whitespace() {
        return Ok(None);
    }
    seen.push(c);
    match tags.iter().position(|tag| *tag == seen) {
        Some(index) => Ok(Some(index)),
        None if tags.iter().any(|tag| tag.starts_with(seen.as_str())) => Ok(None),
        None => Err(Garbled),
    }
}

impl Tags {
    /// A call as Lark, without the marker that opens it. Lines between tags may be missing.
    pub(super) fn lark(&self, lark: &mut Lark<'_>, tool: &ToolSchema) -> String {
        let name_end = if self.begin.is_empty() { "" } else { ">" };
        let mut call = format!("{} {LINE}", lark.text(&format!("{}{}{name_end}", self.begin, tool.name)));
        for Field { key, schema, required } in lark.fields(tool, |key| self.carries(key)) {
            let key = lark.text(&format!("{}{key}{}", self.key, self.key_end));
            let between =
                if self.value.is_empty() { String::new() } else { format!("{LINE} {}", lark.text(self.value)) };
            let field = format!("{key} {between} {} {LINE}", self.value(lark, tool, &schema));
            call += &if required { format!(" {field}") } else { format!(" ({field})?") };
        }
        let close = if self.close.is_empty() { String::new() } else { format!("{LINE} {}", lark.text(self.close)) };
        format!("{call} {} {close}", lark.text(self.end))
    }

    /// A value and its end: text as it is, anything else as JSON.
    fn value(&self, lark: &mut Lark<'_>, tool: &ToolSchema, schema: &serde_json::Value) -> String {
        let line = if self.lines { "\n" } else { "" };
        let end = format!("{line}{}", self.value_end);
        if !Types::in_schema(schema, &tool.parameters).or_unknown(self.unknown).is_text() {
            return format!("{} {} {}", lark.text(line), lark.json(tool, schema), lark.text(&end));
        }
        let Some(texts) = listed(schema, &tool.parameters) else { return lark.until(self.value_end, self.value_cut) };
        let texts = texts.iter().filter_map(|value| if value.is_null() { Some("null") } else { value.as_str() });
        let whole = |text: &&str| {
            std::iter::once(self.value_end)
                .chain(self.value_cut.iter().copied())
                .all(|end| !format!("{line}{text}").contains(end))
        };
        let texts: Vec<String> = texts.filter(whole).map(|text| quoted(&format!("{line}{text}{end}"))).collect();
        lark.any(&texts)
    }

    /// True if a name of an argument can be written.
    pub(super) fn carries(&self, key: &str) -> bool {
        !key.is_empty() && key.len() <= MAX_NAME && key.trim() == key && !key.contains(self.key_end)
    }
}
