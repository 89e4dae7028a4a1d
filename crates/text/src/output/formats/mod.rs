//! Formats of reasoning and of tool calls, and which model writes which.
//!
//! A format of calls is a file here: the markers around a call, a reader of what is between them, and a call as Lark.

mod detect;
mod gemma;
mod harmony;
mod json;
mod lark;
mod mistral;
mod pythonic;
mod xml;

pub(super) use harmony::Messages;

use super::sink::Sink;
use super::step::{Garbled, Step};
use super::tools::ToolSchema;
use crate::tokenizer::Tokenizer;
use lark::Lark;
use std::sync::Arc;

/// Formats that a model writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Formats {
    /// Markup around reasoning.
    pub reasoning: Option<ReasoningFormat>,
    /// Markup of calls.
    pub calls: Option<CallFormat>,
}

/// Markup around reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningFormat {
    /// `<think>…</think>`: Qwen3, DeepSeek-R1, GLM and many more.
    Think,
    /// `[THINK]…[/THINK]`: Magistral and later models of Mistral.
    Mistral,
    /// `<seed:think>…</seed:think>`: Seed-OSS.
    Seed,
    /// `<|channel>thought…<channel|>`: Gemma 4.
    Gemma,
    /// The analysis channel of gpt-oss.
    Harmony,
}

/// Markup of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen2.5, Qwen3.
    Hermes,
    /// `<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>`: Qwen3-Coder, Qwen3.5.
    QwenXml,
    /// `{"name": …, "parameters": {…}}` as the whole answer: Llama 3.
    LlamaJson,
    /// `[name(key=value)]`: Llama 4, LFM2.
    Pythonic,
    /// `[TOOL_CALLS]` with a list of objects, or with a name and arguments: Mistral.
    Mistral,
    /// `<|tool_call>call:NAME{key:value}<tool_call|>`: Gemma 4.
    Gemma,
    /// `<tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value></tool_call>`: GLM 4.5 and later.
    Glm,
    /// A message to `functions.NAME` on the commentary channel: gpt-oss.
    Harmony,
}

/// What the prompt's end says of the answer's beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Opening {
    /// Nothing: the answer may begin with reasoning.
    #[default]
    Open,
    /// The prompt begins reasoning, and the answer goes on with it.
    Within,
    /// The prompt begins and ends reasoning: there is none.
    Over,
    /// The prompt begins content, and the answer goes on with it.
    Continued,
}

/// The markers of a format of calls.
#[derive(Debug)]
pub(super) struct Syntax {
    /// Texts before a call.
    pub open: &'static [&'static str],
    /// Texts behind one.
    pub close: &'static [&'static str],
    /// Special tokens between them.
    pub inner: &'static [&'static str],
    /// First character of an answer that may be a call without a marker.
    pub bare: Option<char>,
}

/// The texts around calls, as a model writes them.
#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Before the first call.
    before: &'static str,
    /// Before each call.
    open: &'static str,
    /// Behind each call.
    close: &'static str,
    between: &'static str,
    /// Behind the last call.
    after: &'static str,
    /// Calls are objects in a list.
    list: bool,
}

/// A reader of the text of calls.
#[derive(Debug, Clone)]
pub(super) enum Reader {
    Objects(json::Objects),
    Tagged(xml::Tagged),
    Pythonic(pythonic::Calls),
    Mistral(mistral::Call),
    Gemma(gemma::Call),
}

impl ReasoningFormat {
    /// All of them, by the names that they have in configurations.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("think", Self::Think),
        ("mistral", Self::Mistral),
        ("seed", Self::Seed),
        ("gemma4", Self::Gemma),
        ("harmony", Self::Harmony),
    ];

    /// Texts that begin and end it.
    pub(super) fn markers(self) -> (&'static str, &'static str) {
        match self {
            Self::Think => ("<think>", "</think>"),
            Self::Mistral => ("[THINK]", "[/THINK]"),
            Self::Seed => ("<seed:think>", "</seed:think>"),
            Self::Gemma => ("<|channel>thought", "<channel|>"),
            Self::Harmony => ("<|channel|>analysis<|message|>", "<|end|>"),
        }
    }

    /// Text that ends it as the model itself would, up to the place where its content begins.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::Think => "\n</think>\n\n",
            Self::Seed => "</seed:think>",
            Self::Mistral => "[/THINK]",
            Self::Gemma => "<channel|>",
            Self::Harmony => "<|end|><|start|>assistant<|channel|>final<|message|>",
        }
    }

    /// Its name in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        name_of(self, &Self::NAMES)
    }

    /// Texts that may stand around it in a message's own text, for templates that have no other place for it.
    #[must_use]
    pub fn inline(self) -> Option<(&'static str, &'static str)> {
        (self != Self::Harmony && self != Self::Gemma).then(|| self.markers())
    }

    /// It may begin wherever content is, because nothing else is written like its marker.
    pub(super) fn is_anywhere(self) -> bool {
        self == Self::Gemma
    }

    /// What the end of a prompt says of it.
    pub(super) fn opening(self, prompt: &str) -> Opening {
        let (open, close) = self.markers();
        match prompt.trim_end() {
            end if end.ends_with(open) => Opening::Within,
            end if end.ends_with(close) && self != Self::Harmony => Opening::Over,
            _ => Opening::Open,
        }
    }

    /// What the beginning of an answer, with which the prompt ends, says of it.
    pub(super) fn opening_after(self, begun: &str) -> Opening {
        let (open, close) = self.markers();
        match (begun.rfind(open), begun.rfind(close)) {
            (Some(open), close) if close < Some(open) => Opening::Within,
            (_, Some(_)) if begun.trim_end().ends_with(close) => Opening::Over,
            _ => Opening::Continued,
        }
    }
}

impl CallFormat {
    /// All of them, by the names that they have in configurations.
    pub const NAMES: [(&'static str, Self); 8] = [
        ("hermes", Self::Hermes),
        ("qwen3_coder", Self::QwenXml),
        ("llama3_json", Self::LlamaJson),
        ("pythonic", Self::Pythonic),
        ("mistral", Self::Mistral),
        ("gemma4", Self::Gemma),
        ("glm", Self::Glm),
        ("harmony", Self::Harmony),
    ];

    /// Its name in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        name_of(self, &Self::NAMES)
    }

    /// A grammar of answers that call these tools, in llguidance's dialect of Lark, whose first rule is `start`: one call, or any number
    /// where they are `parallel`. Special tokens of `tokenizer` are written as their ids.
    #[must_use]
    pub fn lark(self, tokenizer: &Tokenizer, tools: &[ToolSchema], parallel: bool) -> String {
        let mut lark = Lark::new(tokenizer);
        let frame = self.frame(tokenizer);
        let call = self.calls(&mut lark, &frame, tools);
        let one = format!("{} {call}", lark.text(frame.open));
        let one = lark.rule("", &one);
        // A call of gpt-oss ends the answer.
        let more = parallel && self != Self::Harmony;
        let more = if more { format!("({} {one})*", lark.text(frame.between)) } else { String::new() };
        // Models leave lines between reasoning and calls.
        let lines = if self == Self::Harmony { "" } else { "/\\n{0,2}/" };
        let start = format!("{lines} {} {one} {more} {}", lark.text(frame.before), lark.text(frame.after));
        lark.finish(start.trim())
    }

    /// A grammar of answers that may call these tools, with any text around the calls. Where calls have no marker, the answer is either
    /// calls or text, as its first character says.
    #[must_use]
    pub fn lark_if_called(self, tokenizer: &Tokenizer, tools: &[ToolSchema], parallel: bool) -> String {
        let mut lark = Lark::new(tokenizer);
        let frame = self.frame(tokenizer);
        let (marker, rest) = match self {
            Self::Hermes | Self::QwenXml => ("<tool_call>", "\n"),
            Self::Glm => ("<tool_call>", ""),
            Self::Mistral => (mistral::OPEN, if frame.list { " [" } else { "" }),
            Self::Gemma => (gemma::OPEN, ""),
            Self::LlamaJson => return self.lark_or(tokenizer, tools, parallel, "/([^{ \\n](.|\\n)*)?/"),
            Self::Pythonic => return self.lark_or(tokenizer, tools, parallel, "/([^\\[ \\n](.|\\n)*)?/"),
            Self::Harmony => return self.lark_or(tokenizer, tools, parallel, &harmony::lark_of_text(&lark)),
        };
        let call = self.calls(&mut lark, &frame, tools);
        let begun = lark.until(marker, &[]);
        let list = if frame.list { format!("({} {call})*", lark.text(frame.between)) } else { String::new() };
        let one = format!("{begun} {} {call} {list} {}", lark.text(rest), lark.text(frame.after));
        let one = lark.rule("", &one);
        let text = lark.without(&[marker]);
        lark.finish(&format!("{one}{} {text}", if parallel { "*" } else { "?" }))
    }

    /// A grammar of answers that either call these tools or are what `text` says, the body of a rule.
    #[must_use]
    pub fn lark_or(self, tokenizer: &Tokenizer, tools: &[ToolSchema], parallel: bool, text: &str) -> String {
        self.lark(tokenizer, tools, parallel).replacen(
            "start:",
            &format!("start: calls | text\ntext: {text}\ncalls:"),
            1,
        )
    }

    /// Why calls of a tool cannot be held to its schema in this format, if they cannot. A tool that is not `strict` may have keywords that do
    /// not count.
    #[must_use]
    pub fn misfit(self, tokenizer: &Tokenizer, tool: &ToolSchema, strict: bool) -> Option<String> {
        match self {
            Self::Hermes | Self::LlamaJson | Self::Mistral | Self::Harmony => None,
            Self::QwenXml => lark::misfit(tokenizer, tool, strict, |key| xml::QWEN.carries(key)),
            Self::Glm => lark::misfit(tokenizer, tool, strict, |key| xml::GLM.carries(key)),
            Self::Pythonic => lark::misfit(tokenizer, tool, strict, pythonic::carries),
            Self::Gemma => lark::misfit(tokenizer, tool, strict, gemma::carries),
        }
    }

    /// One of the calls, from behind its marker to its end.
    fn calls(self, lark: &mut Lark<'_>, frame: &Frame, tools: &[ToolSchema]) -> String {
        let calls: Vec<String> = tools.iter().map(|tool| self.call(lark, tool, frame.list)).collect();
        let call = lark.any(&calls);
        let call = format!("{call} {}", lark.text(frame.close));
        lark.rule("", &call)
    }

    fn frame(self, tokenizer: &Tokenizer) -> Frame {
        let none = Frame { before: "", open: "", close: "", between: "", after: "", list: false };
        match self {
            Self::Hermes => Frame { open: "<tool_call>\n", close: "\n</tool_call>", between: "\n", ..none },
            Self::QwenXml => Frame { open: "<tool_call>\n", between: "\n", ..none },
            Self::Glm => Frame { open: "<tool_call>", between: "\n", ..none },
            Self::LlamaJson => Frame { between: "; ", ..none },
            Self::Pythonic => {
                let (before, after) = pythonic::around(tokenizer);
                Frame { before, between: ", ", after, ..none }
            }
            Self::Mistral if tokenizer.token_to_id(mistral::ARGS).is_none() => {
                Frame { before: "[TOOL_CALLS] [", between: ", ", after: "]", list: true, ..none }
            }
            Self::Mistral => Frame { open: mistral::OPEN, ..none },
            Self::Gemma => Frame { open: gemma::OPEN, close: gemma::CLOSE, ..none },
            Self::Harmony => none,
        }
    }

    fn call(self, lark: &mut Lark<'_>, tool: &ToolSchema, list: bool) -> String {
        match self {
            Self::Hermes => json::lark(lark, tool, "arguments"),
            Self::LlamaJson => json::lark(lark, tool, "parameters"),
            Self::QwenXml => xml::QWEN.lark(lark, tool),
            Self::Glm => xml::GLM.lark(lark, tool),
            Self::Pythonic => pythonic::lark(lark, tool),
            Self::Mistral if list => json::lark(lark, tool, "arguments"),
            Self::Mistral => mistral::lark(lark, tool),
            Self::Gemma => gemma::lark(lark, tool),
            Self::Harmony => harmony::lark(lark, tool),
        }
    }

    pub(super) fn syntax(self) -> &'static Syntax {
        match self {
            Self::Hermes => &Syntax { open: &["<tool_call>"], close: &["</tool_call>"], inner: &[], bare: None },
            // The model forgets the first marker now and then.
            Self::QwenXml => {
                &Syntax { open: &["<tool_call>", "<function="], close: &["</tool_call>"], inner: &[], bare: None }
            }
            Self::LlamaJson => &Syntax { open: &["<|python_tag|>"], close: &[], inner: &[], bare: Some('{') },
            Self::Pythonic => &Syntax { open: &pythonic::OPEN, close: &pythonic::CLOSE, inner: &[], bare: Some('[') },
            Self::Mistral => {
                &Syntax { open: &[mistral::OPEN], close: &[], inner: &[mistral::ARGS, mistral::CALL_ID], bare: None }
            }
            Self::Gemma => &Syntax { open: &[gemma::OPEN], close: &[gemma::CLOSE], inner: &[gemma::QUOTE], bare: None },
            Self::Glm => &Syntax { open: &["<tool_call>"], close: &["</tool_call>"], inner: &[], bare: None },
            // Calls are messages, which are not divided by markers in a text.
            Self::Harmony => &Syntax { open: &[], close: &[], inner: &[], bare: None },
        }
    }

    /// A reader of what comes after a marker; after none, of a call whose first character it gets too.
    pub(super) fn reader(self, tools: &Arc<[ToolSchema]>, marker: &str) -> Reader {
        match self {
            Self::Hermes | Self::Harmony => Reader::Objects(json::Objects::new("</tool_call>", false)),
            Self::QwenXml => Reader::Tagged(xml::Tagged::new(&xml::QWEN, tools, marker)),
            Self::LlamaJson => Reader::Objects(json::Objects::new("", marker.is_empty())),
            Self::Pythonic => Reader::Pythonic(pythonic::Calls::new(marker)),
            Self::Mistral => Reader::Mistral(mistral::Call::Start),
            Self::Gemma => Reader::Gemma(gemma::Call::new()),
            Self::Glm => Reader::Tagged(xml::Tagged::new(&xml::GLM, tools, marker)),
        }
    }
}

fn name_of<F: PartialEq>(format: F, names: &[(&'static str, F)]) -> &'static str {
    names.iter().find(|(_, named)| *named == format).map_or("", |(name, _)| name)
}

impl Reader {
    /// Takes the next character; what it makes known goes to `sink`.
    pub(super) fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, Garbled> {
        match self {
            Self::Objects(reader) => reader.push(c, sink),
            Self::Tagged(reader) => reader.push(c, sink),
            Self::Pythonic(reader) => reader.push(c, sink),
            Self::Mistral(reader) => reader.push(c, sink),
            Self::Gemma(reader) => reader.push(c, sink),
        }
    }

    /// True if the answer may end here: all calls are whole.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Objects(reader) => reader.is_whole(),
            Self::Tagged(reader) => reader.is_whole(),
            Self::Pythonic(reader) => reader.is_whole(),
            Self::Mistral(reader) => reader.is_whole(),
            Self::Gemma(reader) => reader.is_whole(),
        }
    }
}
