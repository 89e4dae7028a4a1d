//! Calls as JSON objects with a name and arguments: Hermes, Llama 3, and the older form of Mistral.

use super::lark::Lark;
use crate::output::json::{Json, quoted};
use crate::output::sink::Sink;
use crate::output::step::{Expect, Garbled, Step};
use crate::output::tools::{Arguments, ToolSchema};

/// Characters of a name, as JSON, at most.
const MAX_NAME: usize = 512;
/// Bytes of arguments that may come before their name.
const MAX_EARLY: usize = 1 << 20;

/// Reads one object, several, or a list of them.
#[derive(Debug, Clone)]
pub(in crate::output) struct Objects {
    /// Text behind the last one; empty where nothing marks the end.
    close: &'static str,
    /// Other keys than those of a call do not belong to one.
    only: bool,
    list: bool,
    name: Option<String>,
    /// Arguments that came before their name.
    early: String,
    called: bool,
    argued: bool,
    at: At,
}

#[derive(Debug, Clone)]
enum At {
    /// Before an object, the first one or a further one in a list.
    Start,
    /// Before a key; `}` may come where there is none yet, or where a value ended.
    Key {
        first: bool,
    },
    InKey(Quoted),
    Colon(Key),
    Name(Quoted),
    Arguments(Arguments),
    Other(Json),
    /// Behind a value.
    Next,
    /// Behind an object.
    Between,
    Close(Expect),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Name,
    Arguments,
    Other,
}

/// A JSON string that is decoded once it is whole.
#[derive(Debug, Clone, Default)]
struct Quoted {
    json: Json,
    text: String,
}

impl Quoted {
    fn push(&mut self, c: char) -> Result<Option<String>, Garbled> {
        let is_text = !self.text.is_empty() || c == '"';
        if !is_text && c.is_ascii_whitespace() {
            return Ok(None);
        }
        if !is_text || self.text.len() > MAX_NAME {
            return Err(Garbled);
        }
        self.text.push(c);
        match self.json.push(c)? {
            Step::Done => serde_json::from_str(&self.text).map(Some).map_err(|_| Garbled),
            _ => Ok(None),
        }
    }
}

impl Objects {
    /// `only`: an object with a key that no call has is none.
    pub(super) fn new(close: &'static str, only: bool) -> Self {
        let at = At::Start;
        Self { close, only, list: false, name: None, early: String::new(), called: false, argued: false, at }
    }

    pub(super) fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, Garbled> {
        let space = c.is_ascii_whitespace();
        match &mut self.at {
            At::Start | At::Key { .. } | At::Colon(_) | At::Next | At::Between if space => {}
            At::Start => match c {
                '[' if !self.list => self.list = true,
                '{' => self.begin(),
                _ => return Err(Garbled),
            },
            At::Key { first: true } if c == '}' => self.end(sink)?,
            At::Key { .. } => {
                let mut key = Quoted::default();
                key.push(c)?;
                self.at = At::InKey(key);
            }
            At::InKey(key) => {
                if let Some(key) = key.push(c)? {
                    self.at = At::Colon(self.key(&key)?);
                }
            }
            At::Colon(key) if c == ':' => {
                self.at = match key {
                    Key::Name => At::Name(Quoted::default()),
                    Key::Arguments => At::Arguments(Arguments::default()),
                    Key::Other => At::Other(Json::default()),
                }
            }
            At::Name(name) => {
                if let Some(name) = name.push(c)? {
                    if name.is_empty() {
                        return Err(Garbled);
                    }
                    if self.argued {
                        self.called = true;
                        sink.call(name.clone());
                        sink.arguments(&std::mem::take(&mut self.early));
                    }
                    self.name = Some(name);
                    self.at = At::Next;
                }
            }
            At::Arguments(arguments) => {
                let (called, name, early) = (&mut self.called, &self.name, &mut self.early);
                let step = arguments.push(c, |text| match name {
                    Some(name) => {
                        if !*called {
                            sink.call(name.clone());
                            *called = true;
                        }
                        sink.arguments(text);
                    }
                    None => early.push_str(text),
                })?;
                if self.early.len() > MAX_EARLY {
                    return Err(Garbled);
                }
                if step == Step::Done {
                    self.argued = true;
                    self.at = At::Next;
                }
            }
            At::Other(json) => match json.push(c)? {
                Step::More => {}
                Step::Done => self.at = At::Next,
                Step::Before => {
                    self.at = At::Next;
                    return self.push(c, sink);
                }
            },
            At::Next => match c {
                ',' => self.at = At::Key { first: false },
                '}' => self.end(sink)?,
                _ => return Err(Garbled),
            },
            At::Between => return self.between(c),
            At::Close(close) => {
                if close.push(c)? {
                    return Ok(Step::Done);
                }
            }
            At::Colon(_) => return Err(Garbled),
        }
        Ok(Step::More)
    }

    /// True if all that has come are whole calls.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.at, At::Between) && !self.list
    }

    fn begin(&mut self) {
        (self.name, self.called, self.argued, self.at) = (None, false, false, At::Key { first: true });
        self.early.clear();
    }

    fn key(&self, key: &str) -> Result<Key, Garbled> {
        match key {
            "name" if self.name.is_none() => Ok(Key::Name),
            "arguments" | "parameters" if !self.argued => Ok(Key::Arguments),
            "name" | "arguments" | "parameters" => Err(Garbled),
            "type" | "id" => Ok(Key::Other),
            _ if self.only => Err(Garbled),
            _ => Ok(Key::Other),
        }
    }

    /// The object is whole.
    fn end(&mut self, sink: &mut Sink) -> Result<(), Garbled> {
        if !self.called {
            // Nothing marks an object without arguments as a call, if markers do not.
            if self.only {
                return Err(Garbled);
            }
            sink.call(self.name.take().ok_or(Garbled)?);
            sink.arguments("{}");
        }
        self.at = At::Between;
        Ok(())
    }

    fn between(&mut self, c: char) -> Result<Step, Garbled> {
        match c {
            ',' if self.list => self.at = At::Start,
            ']' if self.list => self.list = false,
            '{' if !self.list => self.begin(),
            ';' if self.close.is_empty() => {}
            _ if self.list => return Err(Garbled),
            _ if self.close.is_empty() => return Ok(Step::Before),
            _ => {
                let mut close = Expect(self.close);
                close.push(c)?;
                self.at = At::Close(close);
            }
        }
        Ok(Step::More)
    }
}

/// An object as Lark; `key` has the arguments.
pub(super) fn lark(lark: &mut Lark<'_>, tool: &ToolSchema, key: &str) -> String {
    // Piece by piece as JSON is: where content may be JSON too, a lexer takes the longest piece that fits either.
    let (name, key) = (quoted(&tool.name), format!("\"{key}\""));
    let before = ["{", "\"name\"", ": ", &name, ", ", &key, ": "].map(|piece| lark.text(piece)).join(" ");
    format!("{before} {} {}", lark.arguments(tool), lark.text("}"))
}
