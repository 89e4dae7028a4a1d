//! Calls as Python writes them: `[name(key=value), name(key=value)]`.

use super::lark::{Field, Lark};
use crate::output::json::quoted;
use crate::output::loose::{Loose, Notation};
use crate::output::sink::Sink;
use crate::output::step::{Expect, Garbled, Step};
use crate::output::tools::ToolSchema;
use crate::tokenizer::Tokenizer;

/// Markers before the list: LFM2's and Llama 4's, which often has none.
pub(super) const OPEN: [&str; 2] = ["<|tool_call_start|>", "<|python_start|>"];
/// Markers behind it, in the same order.
pub(super) const CLOSE: [&str; 2] = ["<|tool_call_end|>", "<|python_end|>"];
/// Bytes of a name or a key at most.
const MAX_NAME: usize = 512;

/// Reads a list of calls.
#[derive(Debug, Clone)]
pub(in crate::output) struct Calls {
    /// Text behind the list; empty where nothing marks the end.
    close: &'static str,
    /// Name of the call that has begun and has not gone out: it may be something else until a key or the end follows.
    name: String,
    /// Keys of the call that goes on.
    keys: Vec<String>,
    at: At,
}

#[derive(Debug, Clone)]
enum At {
    Start,
    Name,
    /// Before a key; the call may end where there is none yet, or behind a comma.
    Key,
    InKey(String),
    /// Behind a key, before its value.
    Equals,
    Value(Box<Loose>),
    /// Behind a value.
    Next,
    /// Behind a call.
    Between,
    Close(Expect),
}

impl Calls {
    /// A reader of what comes after this marker, or after none.
    pub(super) fn new(marker: &str) -> Self {
        let close = OPEN.iter().position(|open| *open == marker).map_or("", |index| CLOSE[index]);
        Self { close, name: String::new(), keys: Vec::new(), at: At::Start }
    }

    pub(super) fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, Garbled> {
        let space = c.is_ascii_whitespace();
        match &mut self.at {
            At::Start | At::Key | At::Equals | At::Next | At::Between if space => {}
            At::Close(close) if space && close.0 == self.close => {}
            At::Name if space && self.name.is_empty() => {}
            At::Start if c == '[' => self.at = At::Name,
            At::Name if c == '(' && !self.name.is_empty() => self.at = At::Key,
            At::Name if (is_word(c) || matches!(c, ':' | '/')) && self.name.len() < MAX_NAME => self.name.push(c),
            At::Key if c == ')' => {
                self.call(sink);
                self.end(sink);
            }
            At::Key if is_word(c) => self.at = At::InKey(c.into()),
            At::InKey(key) if is_word(c) && key.len() < MAX_NAME => key.push(c),
            At::InKey(key) if space || c == '=' => {
                let key = std::mem::take(key);
                self.at = At::Equals;
                if self.keys.contains(&key) {
                    return Err(Garbled);
                }
                self.keys.push(key);
                return self.push(c, sink);
            }
            At::Equals if c == '=' => {
                self.call(sink);
                sink.arguments(if self.keys.len() == 1 { "{" } else { ", " });
                sink.arguments(&quoted(self.keys.last().map_or("", String::as_str)));
                sink.arguments(": ");
                self.at = At::Value(Box::new(Loose::new(Notation::Python)));
            }
            At::Value(value) => {
                let mut json = String::new();
                let step = value.push(c, &mut json);
                sink.arguments(&json);
                match step? {
                    Step::More => {}
                    Step::Done => self.at = At::Next,
                    Step::Before => {
                        self.at = At::Next;
                        return self.push(c, sink);
                    }
                }
            }
            At::Next if c == ',' => self.at = At::Key,
            At::Next if c == ')' => self.end(sink),
            At::Between if c == ',' => self.at = At::Name,
            At::Between if c == ']' => {
                if self.close.is_empty() {
                    return Ok(Step::Done);
                }
                self.at = At::Close(Expect(self.close));
            }
            At::Close(close) => {
                if close.push(c)? {
                    return Ok(Step::Done);
                }
            }
            _ => return Err(Garbled),
        }
        Ok(Step::More)
    }

    /// True if the list is whole, whether or not the model closes it.
    pub(super) fn is_whole(&self) -> bool {
        matches!(&self.at, At::Close(close) if close.0 == self.close)
    }

    /// Lets the call go out, now that it cannot be anything else.
    fn call(&mut self, sink: &mut Sink) {
        if !self.name.is_empty() {
            sink.call(std::mem::take(&mut self.name));
        }
    }

    fn end(&mut self, sink: &mut Sink) {
        sink.arguments(if self.keys.is_empty() { "{}" } else { "}" });
        self.keys.clear();
        self.at = At::Between;
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// True if a name of an argument can be written.
pub(super) fn carries(key: &str) -> bool {
    !key.is_empty() && key.len() <= MAX_NAME && key.chars().all(is_word)
}

/// Texts around a list of calls, as a model with this tokenizer writes them.
pub(super) fn around(tokenizer: &Tokenizer) -> (&'static str, &'static str) {
    match tokenizer.token_to_id(OPEN[0]) {
        Some(_) => ("<|tool_call_start|>[", "]<|tool_call_end|>"),
        None => ("[", "]"),
    }
}

/// A call as Lark, without the brackets of the list.
pub(super) fn lark(lark: &mut Lark<'_>, tool: &ToolSchema) -> String {
    let mut fields = Vec::new();
    for Field { key, schema, required } in lark.fields(tool, carries) {
        fields.push((format!("{} {}", lark.text(&format!("{key}=")), lark.json(tool, &schema)), required));
    }
    let fields = lark.separated(fields, ", ");
    format!("{} {fields} {}", lark.text(&format!("{}(", tool.name)), lark.text(")"))
}
