//! Messages of gpt-oss: a header with a channel and perhaps a recipient, then a text. Reasoning, content and calls are all messages.

use super::Opening;
use super::lark::{Lark, TEXT};
use crate::output::sink::Sink;
use crate::output::step::{Step, begins};
use crate::output::tools::{Arguments, ToolSchema};

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const CONSTRAIN: &str = "<|constrain|>";
const ENDS: [&str; 3] = ["<|end|>", "<|return|>", "<|call|>"];
/// All of them.
const MARKERS: [&str; 7] = [START, CHANNEL, MESSAGE, CONSTRAIN, ENDS[0], ENDS[1], ENDS[2]];
/// Namespace of a request's tools.
const FUNCTIONS: &str = "functions.";
/// Bytes of a header at most.
const MAX_HEADER: usize = 1024;

/// Divides an answer into messages.
#[derive(Debug, Clone)]
pub(crate) struct Messages {
    at: At,
    /// Characters that may begin a marker, each hidden or not.
    held: Vec<(char, bool)>,
    /// A message has ended.
    answered: bool,
}

#[derive(Debug, Clone)]
enum At {
    Header(String),
    Content,
    Reasoning,
    Call(Box<Call>),
    /// Arguments that cannot be read.
    Garbled,
    /// Between messages.
    Between,
}

/// A message to a function.
#[derive(Debug, Clone)]
struct Call {
    name: String,
    arguments: Arguments,
    whole: bool,
    /// What has not gone out.
    raw: String,
    /// Text of what has gone out.
    written: String,
}

impl Messages {
    pub(crate) fn new(opening: Opening) -> Self {
        let at = match opening {
            Opening::Within => At::Reasoning,
            Opening::Continued => At::Content,
            Opening::Open | Opening::Over => At::Header(String::new()),
        };
        Self { at, held: Vec::new(), answered: false }
    }

    /// Takes the next character; hidden ones are a special token's.
    pub(crate) fn push(&mut self, c: char, hidden: bool, sink: &mut Sink) {
        self.held.push((c, hidden));
        while !self.held.is_empty() {
            let seen: Vec<char> = self.held.iter().map(|(c, _)| *c).collect();
            let Some(marker) = MARKERS.into_iter().find(|marker| begins(marker, &seen)) else {
                let (c, hidden) = self.held.remove(0);
                self.text(c, hidden, sink);
                continue;
            };
            if marker.len() == seen.len() {
                self.held.clear();
                self.marker(marker, sink);
            }
            return;
        }
    }

    /// True if a special token is markup.
    pub(crate) fn is_markup(token: &str) -> bool {
        MARKERS.contains(&token)
    }

    /// Takes a special token that is no markup.
    pub(crate) fn push_opaque(&mut self, text: &str, sink: &mut Sink) {
        self.release(sink);
        if matches!(self.at, At::Content | At::Between) {
            sink.hidden(text);
        }
    }

    /// True within reasoning, and before the first message has said what it is.
    pub(crate) fn reasons(&self) -> bool {
        match self.at {
            At::Reasoning => true,
            At::Header(_) => !self.answered,
            _ => false,
        }
    }

    /// Nothing comes any more.
    pub(crate) fn finish(&mut self, sink: &mut Sink) {
        self.release(sink);
        match std::mem::replace(&mut self.at, At::Between) {
            At::Header(header) if header.contains("to=") => sink.malformed(&header),
            // A model that does not write headers at all.
            At::Header(header) if !header.contains(CHANNEL) => sink.contents(&header),
            At::Call(mut call) if !call.whole => call.break_off(sink),
            _ => {}
        }
    }

    fn release(&mut self, sink: &mut Sink) {
        for (c, hidden) in std::mem::take(&mut self.held) {
            self.text(c, hidden, sink);
        }
    }

    fn text(&mut self, c: char, hidden: bool, sink: &mut Sink) {
        match &mut self.at {
            At::Header(header) => {
                header.push(c);
                if header.len() > MAX_HEADER {
                    sink.malformed(header);
                    self.at = At::Garbled;
                }
            }
            At::Content if hidden => sink.hidden(c.encode_utf8(&mut [0; 4])),
            At::Content => sink.content(c),
            At::Reasoning if hidden => {}
            At::Reasoning => sink.reasoning(c),
            At::Call(call) => {
                if !call.push(c, sink) {
                    call.break_off(sink);
                    self.at = At::Garbled;
                }
            }
            At::Garbled => sink.malformed(c.encode_utf8(&mut [0; 4])),
            At::Between if hidden || c.is_whitespace() => {}
            At::Between => {
                self.at = At::Content;
                sink.content(c);
            }
        }
    }

    fn marker(&mut self, marker: &str, sink: &mut Sink) {
        match &mut self.at {
            At::Header(header) if marker == MESSAGE => self.at = message(header, sink),
            At::Header(header) if matches!(marker, CHANNEL | CONSTRAIN) => header.push_str(marker),
            _ if matches!(marker, MESSAGE | CONSTRAIN) => {}
            _ => {
                self.finish(sink);
                self.answered = true;
                match marker {
                    START => self.at = At::Header(String::new()),
                    CHANNEL => self.at = At::Header(CHANNEL.to_owned()),
                    _ => {}
                }
            }
        }
    }
}

/// The message behind a header such as `assistant<|channel|>commentary to=functions.NAME <|constrain|>json`.
fn message(header: &str, sink: &mut Sink) -> At {
    let word = |text: &str| text.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or_default().to_owned();
    let channel = header.split_once(CHANNEL).map(|(_, behind)| word(behind));
    match header.split_once("to=").map(|(_, behind)| word(behind)) {
        Some(to) => {
            let name = to.strip_prefix(FUNCTIONS).unwrap_or(&to).to_owned();
            let raw = format!("{header}{MESSAGE}");
            if name.is_empty() {
                sink.malformed(&raw);
                return At::Garbled;
            }
            let (arguments, written) = (Arguments::default(), String::new());
            At::Call(Box::new(Call { name, arguments, whole: false, raw, written }))
        }
        None if channel.as_deref() == Some("analysis") => At::Reasoning,
        None => At::Content,
    }
}

impl Call {
    /// False if the arguments cannot be read.
    fn push(&mut self, c: char, sink: &mut Sink) -> bool {
        let Self { name, arguments, whole, raw, written } = self;
        if *whole {
            raw.push(c);
            return c.is_whitespace();
        }
        let parts = sink.parts();
        let step = arguments.push(c, |text| {
            if !name.is_empty() {
                sink.call(std::mem::take(name));
            }
            sink.arguments(text);
        });
        *whole = step == Ok(Step::Done);
        if sink.parts() > parts {
            *written += &std::mem::take(raw);
        }
        if step.is_ok() && sink.parts() > parts {
            written.push(c)
        } else {
            raw.push(c)
        }
        step.is_ok()
    }

    /// Ends before it is whole, or behind its end in text that is none of it.
    fn break_off(&mut self, sink: &mut Sink) {
        sink.break_off(std::mem::take(&mut self.written));
        sink.malformed(&self.raw);
    }
}

/// A call as Lark, from the start of its message.
pub(super) fn lark(lark: &mut Lark<'_>, tool: &ToolSchema) -> String {
    let head =
        lark.text(&format!("{START}assistant{CHANNEL}commentary to={FUNCTIONS}{} {CONSTRAIN}json{MESSAGE}", tool.name));
    format!("{head} {} {}", lark.arguments(tool), lark.text(ENDS[2]))
}

/// A message to the user as Lark, from its start.
pub(super) fn lark_of_text(lark: &Lark<'_>) -> String {
    format!("{} {TEXT}", lark.text(&format!("{START}assistant{CHANNEL}final{MESSAGE}")))
}
