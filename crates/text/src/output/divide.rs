//! Content, reasoning and calls of an answer whose markup stands in its text.

use super::formats::{Formats, Opening, Reader, ReasoningFormat, Syntax};
use super::sink::Sink;
use super::step::{Garbled, Step, begins};
use super::tools::ToolSchema;
use std::sync::Arc;

/// Bytes of a call that may be held back until they can be read.
const MAX_HELD: usize = 1 << 20;
/// Bytes of a call's markup that are kept for the case that it never becomes whole; what is beyond them is lost then.
const MAX_WRITTEN: usize = 4 << 20;
/// Characters of a marker at most.
const MAX_MARKER: usize = 32;

/// Divides an answer, a character at a time, so that no cut of its text can matter.
///
/// Reasoning begins only where no content has come since the answer's beginning or the last markup: an answer may speak of `<think>`.
/// Space beside markup belongs to it: behind the beginning and before the end of reasoning, and on either side of a call.
#[derive(Debug, Clone)]
pub(super) struct Divider {
    formats: Formats,
    syntax: Option<&'static Syntax>,
    tools: Arc<[ToolSchema]>,
    /// Markup may follow content.
    may_mark: bool,
    at: At,
    /// Characters that may begin a marker, each hidden or not.
    held: Vec<(char, bool)>,
    /// Space that may stand before markup.
    space: String,
}

#[derive(Debug, Clone)]
enum At {
    Content {
        /// No content has come since the beginning or the last markup.
        fresh: bool,
        /// Markup came last: space is not content.
        trims: bool,
    },
    Reasoning {
        begun: bool,
    },
    Call(Box<Call>),
    /// In a call that cannot be read.
    Garbled,
}

/// A call being read.
#[derive(Debug, Clone)]
struct Call {
    reader: Reader,
    /// Text that has not gone out.
    raw: Vec<(char, bool)>,
    /// Text of what has gone out of the last call.
    written: String,
    bytes: usize,
    /// It is one for certain: a marker or the reader said so.
    certain: bool,
}

/// What a marker does.
#[derive(Debug, Clone, Copy)]
enum Marker {
    Open,
    Close,
    Reason,
    EndReason,
}

impl Divider {
    pub(super) fn new(formats: Formats, tools: Arc<[ToolSchema]>, opening: Opening) -> Self {
        let at = match opening {
            Opening::Within => At::Reasoning { begun: false },
            Opening::Open | Opening::Over => At::Content { fresh: true, trims: false },
            Opening::Continued => At::Content { fresh: false, trims: false },
        };
        let syntax = formats.calls.map(|calls| calls.syntax());
        let may_mark = syntax.is_some() || formats.reasoning.is_some_and(ReasoningFormat::is_anywhere);
        Self { formats, syntax, tools, may_mark, at, held: Vec::new(), space: String::new() }
    }

    /// Takes the next character; hidden ones are a special token's.
    pub(super) fn push(&mut self, c: char, hidden: bool, sink: &mut Sink) {
        if let At::Call(_) = self.at {
            return self.read(c, hidden, sink);
        }
        self.held.push((c, hidden));
        let seen: Vec<char> = self.held.iter().map(|(c, _)| *c).collect();
        match self.marker(&seen) {
            Some((text, marker)) if text.len() == seen.len() => {
                let text_held = std::mem::take(&mut self.held);
                self.mark(text, marker, text_held, sink);
            }
            Some(_) => {}
            None => {
                // Its first character is no marker's; the others may be.
                let mut held = std::mem::take(&mut self.held).into_iter();
                if let Some((c, hidden)) = held.next() {
                    self.text(c, hidden, sink);
                }
                held.for_each(|(c, hidden)| self.push(c, hidden, sink));
            }
        }
    }

    /// Takes a special token that is no markup.
    pub(super) fn push_opaque(&mut self, text: &str, sink: &mut Sink) {
        if let At::Content { .. } = self.at {
            self.release(sink);
            self.release_space(sink);
            sink.hidden(text);
        }
    }

    /// True if a special token is markup, or a part of it.
    pub(super) fn is_markup(&self, token: &str) -> bool {
        let calls =
            self.syntax.into_iter().flat_map(|syntax| [syntax.open, syntax.close, syntax.inner]).flatten().copied();
        let reasoning =
            self.formats.reasoning.map(ReasoningFormat::markers).into_iter().flat_map(|(open, close)| [open, close]);
        calls.chain(reasoning).any(|marker| marker.contains(token))
    }

    /// True within reasoning, and while a marker that begins it is incomplete.
    pub(super) fn reasons(&self) -> bool {
        let seen: Vec<char> = self.held.iter().map(|(c, _)| *c).collect();
        match self.at {
            At::Reasoning { .. } => true,
            _ => !seen.is_empty() && matches!(self.marker(&seen), Some((_, Marker::Reason))),
        }
    }

    /// Nothing comes any more.
    pub(super) fn finish(&mut self, sink: &mut Sink) {
        if matches!(&self.at, At::Call(call) if !call.reader.is_whole()) {
            self.give_up(sink);
        }
        self.release(sink);
        self.release_space(sink);
    }

    /// The marker that these characters are or begin, where the answer is now.
    fn marker(&self, seen: &[char]) -> Option<(&'static str, Marker)> {
        let calls = |marker| {
            let texts = self.syntax.map_or(&[][..], |syntax| match marker {
                Marker::Open => syntax.open,
                _ => syntax.close,
            });
            texts.iter().map(move |text| (*text, marker))
        };
        let reasoning = self.formats.reasoning.map(ReasoningFormat::markers);
        let anywhere = self.formats.reasoning.is_some_and(ReasoningFormat::is_anywhere);
        let (open, close, reason, end) = match self.at {
            At::Content { fresh, trims } => (true, trims, fresh || anywhere, false),
            At::Reasoning { .. } => (false, false, false, true),
            At::Garbled => (true, true, false, false),
            At::Call(_) => (false, false, false, false),
        };
        let reason = reasoning.filter(|_| reason).map(|(open, _)| (open, Marker::Reason));
        let end = reasoning.filter(|_| end).map(|(_, close)| (close, Marker::EndReason));
        let open = calls(Marker::Open).filter(|_| open);
        let close = calls(Marker::Close).filter(|_| close);
        open.chain(close).chain(reason).chain(end).find(|(text, _)| begins(text, seen))
    }

    /// Follows a whole marker.
    fn mark(&mut self, text: &'static str, marker: Marker, held: Vec<(char, bool)>, sink: &mut Sink) {
        self.space.clear();
        match marker {
            Marker::Open => {
                if let Some(calls) = self.formats.calls {
                    let reader = calls.reader(&self.tools, text);
                    let (raw, bytes) = (held, text.len());
                    self.at = At::Call(Box::new(Call { reader, raw, written: String::new(), bytes, certain: true }));
                }
            }
            Marker::Close => {
                if let At::Garbled = self.at {
                    sink.malformed(text);
                }
                self.at = At::Content { fresh: true, trims: true };
            }
            Marker::Reason => self.at = At::Reasoning { begun: false },
            Marker::EndReason => self.at = At::Content { fresh: true, trims: true },
        }
    }

    /// Takes a character that belongs to no marker.
    fn text(&mut self, c: char, hidden: bool, sink: &mut Sink) {
        match &mut self.at {
            At::Content { .. } if hidden => {
                self.release_space(sink);
                sink.hidden(c.encode_utf8(&mut [0; 4]));
            }
            At::Content { trims: true, .. } if c.is_whitespace() => {}
            At::Content { fresh, .. } if c.is_whitespace() && (*fresh || self.may_mark) => self.space.push(c),
            At::Content { fresh: true, .. } if self.syntax.is_some_and(|syntax| syntax.bare == Some(c)) => {
                if let Some(calls) = self.formats.calls {
                    let (reader, raw) = (calls.reader(&self.tools, ""), Vec::new());
                    let written = String::new();
                    self.at = At::Call(Box::new(Call { reader, raw, written, bytes: 0, certain: false }));
                    self.read(c, hidden, sink);
                }
            }
            At::Content { fresh, trims } => {
                (*fresh, *trims) = (false, false);
                self.release_space(sink);
                sink.content(c);
            }
            At::Reasoning { .. } if hidden => {}
            At::Reasoning { begun: false } if c.is_whitespace() => {}
            At::Reasoning { .. } if c.is_whitespace() => self.space.push(c),
            At::Reasoning { begun } => {
                *begun = true;
                self.release_space(sink);
                sink.reasoning(c);
            }
            At::Garbled | At::Call(_) => sink.malformed(c.encode_utf8(&mut [0; 4])),
        }
    }

    /// Takes a character of a call.
    fn read(&mut self, c: char, hidden: bool, sink: &mut Sink) {
        let At::Call(call) = &mut self.at else { return };
        let (before, calls) = (sink.parts(), sink.calls());
        let step = call.reader.push(c, sink);
        if sink.parts() > before {
            call.certain = true;
            if sink.calls() > calls {
                call.written.clear();
            }
            let now = step.is_ok().then_some(c);
            let written = call.raw.drain(..).map(|(c, _)| c).chain(now);
            if call.written.len() < MAX_WRITTEN {
                call.written.extend(written);
            }
            call.bytes = 0;
            self.space.clear();
        }
        let call_over = At::Content { fresh: true, trims: true };
        match step {
            Ok(Step::Done) => self.at = call_over,
            Ok(Step::Before) => {
                self.at = call_over;
                self.push(c, hidden, sink);
            }
            Ok(Step::More) if call.bytes <= MAX_HELD => {
                // What goes out as a call is not repeated.
                if sink.parts() == before {
                    call.raw.push((c, hidden));
                    call.bytes += c.len_utf8();
                }
            }
            Ok(Step::More) | Err(Garbled) => {
                call.raw.push((c, hidden));
                self.give_up(sink);
            }
        }
    }

    /// Takes a call for what cannot be read: content if nothing marked it as a call, else malformed.
    fn give_up(&mut self, sink: &mut Sink) {
        let At::Call(call) = &mut self.at else { return };
        let raw = std::mem::take(&mut call.raw);
        if !call.certain {
            self.at = At::Content { fresh: false, trims: false };
            return raw.into_iter().for_each(|(c, hidden)| self.push(c, hidden, sink));
        }
        sink.break_off(std::mem::take(&mut call.written));
        self.at = At::Garbled;
        // Its end may be the beginning of the marker that closes it.
        let last = raw.len().saturating_sub(MAX_MARKER);
        let from = (last..raw.len()).find(|from| {
            let end: Vec<char> = raw[*from..].iter().map(|(c, _)| *c).collect();
            self.marker(&end).is_some_and(|(text, _)| text.len() > end.len())
        });
        let (text, end) = raw.split_at(from.unwrap_or(raw.len()));
        sink.malformed(&text.iter().map(|(c, _)| *c).collect::<String>());
        self.held = end.to_vec();
    }

    fn release(&mut self, sink: &mut Sink) {
        for (c, hidden) in std::mem::take(&mut self.held) {
            self.text(c, hidden, sink);
        }
    }

    fn release_space(&mut self, sink: &mut Sink) {
        let space = std::mem::take(&mut self.space);
        match self.at {
            At::Reasoning { .. } => space.chars().for_each(|c| sink.reasoning(c)),
            _ => sink.contents(&space),
        }
    }
}
