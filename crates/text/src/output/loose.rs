//! Values that are nearly JSON, into JSON while they come: Python's literals, and Gemma's notation.

use super::json::{MAX_DEPTH, escape, is_beyond, is_json, quoted};
use super::step::{Garbled, Step, Until};

/// Bytes of a number, a word or a bare key at most.
const MAX_WORD: usize = 1024;

/// Notation of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    /// Quotes and escapes of Python; tuples are lists.
    Python,
    /// Bare keys, strings between two of these marks without escapes; words that are no JSON are strings.
    Marked(&'static str),
}

/// One value.
#[derive(Debug, Clone)]
pub(super) struct Loose {
    notation: Notation,
    at: At,
    /// Brackets that are open, as what closes them.
    open: Vec<char>,
}

#[derive(Debug, Clone)]
enum At {
    /// Before a value; within a list, which may close instead, it may come behind a comma.
    Value {
        closes: bool,
        comma: bool,
    },
    /// Before a key, behind a comma or not; the bracket may close instead.
    Key {
        comma: bool,
    },
    Colon,
    Next,
    /// A number, a word or a bare key.
    Word {
        text: String,
        key: bool,
    },
    /// Between quotes, up to this one.
    Text {
        quote: char,
        key: bool,
    },
    /// Behind a backslash between quotes: the digits of a code so far, of so many.
    Escape {
        quote: char,
        key: bool,
        digits: Option<(String, usize)>,
    },
    /// In the mark before a string.
    Mark {
        seen: String,
        key: bool,
    },
    /// Between marks.
    Marked {
        end: Until,
        key: bool,
    },
}

impl Loose {
    pub(super) fn new(notation: Notation) -> Self {
        Self { notation, at: At::Value { closes: false, comma: false }, open: Vec::new() }
    }

    /// Takes the next character and adds what it becomes to `json`. Only a number or a word ends before one.
    pub(super) fn push(&mut self, c: char, json: &mut String) -> Result<Step, Garbled> {
        let space = c.is_ascii_whitespace();
        match &mut self.at {
            At::Value { .. } | At::Key { .. } | At::Colon | At::Next if space => {}
            At::Value { closes: true, .. } | At::Key { .. } if self.open.last() == Some(&c) => return self.close(json),
            At::Value { comma, .. } => {
                if *comma {
                    json.push_str(", ");
                }
                self.begin(c, json)?;
            }
            At::Key { comma } => {
                if *comma {
                    json.push_str(", ");
                }
                self.at = self.text(c, true, json)?;
            }
            At::Colon if c == ':' => {
                json.push_str(": ");
                self.at = At::Value { closes: false, comma: false };
            }
            At::Colon => return Err(Garbled),
            At::Next if c == ',' => {
                let object = self.open.last() == Some(&'}');
                self.at = if object { At::Key { comma: true } } else { At::Value { closes: true, comma: true } };
            }
            At::Next if self.open.last() == Some(&c) => return self.close(json),
            At::Next => return Err(Garbled),
            At::Word { text, key } => match c {
                ',' | ':' | ']' | '}' | ')' => {
                    let (text, key) = (std::mem::take(text), *key);
                    return self.word(&text, key, c, json);
                }
                _ if text.len() >= MAX_WORD => return Err(Garbled),
                _ => text.push(c),
            },
            At::Text { quote, key } => match c {
                _ if c == *quote => {
                    let key = *key;
                    json.push('"');
                    return Ok(self.ended(key));
                }
                '\\' => self.at = At::Escape { quote: *quote, key: *key, digits: None },
                '\n' => return Err(Garbled),
                c => escape(c, json),
            },
            At::Escape { .. } => self.escaped(c, json)?,
            At::Mark { seen, key } => {
                let Notation::Marked(mark) = self.notation else { return Err(Garbled) };
                seen.push(c);
                if seen == mark {
                    json.push('"');
                    self.at = At::Marked { end: Until::new(mark), key: *key };
                } else if !mark.starts_with(seen.as_str()) {
                    return Err(Garbled);
                }
            }
            At::Marked { end, key } => {
                if end.push(c, |c| escape(c, json)).is_some() {
                    let key = *key;
                    json.push('"');
                    return Ok(self.ended(key));
                }
            }
        }
        Ok(Step::More)
    }

    fn begin(&mut self, c: char, json: &mut String) -> Result<(), Garbled> {
        let python = self.notation == Notation::Python;
        self.at = match c {
            '[' | '{' | '(' if self.open.len() < MAX_DEPTH && (c != '(' || python) => {
                self.open.push(match c {
                    '[' => ']',
                    '{' => '}',
                    _ => ')',
                });
                json.push(if c == '{' { '{' } else { '[' });
                if c == '{' { At::Key { comma: false } } else { At::Value { closes: true, comma: false } }
            }
            _ => self.text(c, false, json)?,
        };
        Ok(())
    }

    /// The beginning of a key, or of a value that is no list and no object.
    fn text(&self, c: char, key: bool, json: &mut String) -> Result<At, Garbled> {
        Ok(match (c, self.notation) {
            ('"' | '\'', Notation::Python) => {
                json.push('"');
                At::Text { quote: c, key }
            }
            (c, Notation::Marked(mark)) if mark.starts_with(c) => At::Mark { seen: c.into(), key },
            (',' | ':' | '[' | ']' | '{' | '}' | '(' | ')' | '=', _) => return Err(Garbled),
            // Python's keys are values like others; only strings can be keys in JSON.
            (_, Notation::Python) if key => return Err(Garbled),
            (c, _) => At::Word { text: c.into(), key },
        })
    }

    /// A number, a word or a bare key has ended before `c`.
    fn word(&mut self, text: &str, key: bool, c: char, json: &mut String) -> Result<Step, Garbled> {
        let text = text.trim_end();
        if key {
            json.push_str(&quoted(text));
        } else {
            json.push_str(&self.scalar(text).ok_or(Garbled)?);
        }
        match self.ended(key) {
            Step::Done => Ok(Step::Before),
            _ => self.push(c, json),
        }
    }

    /// JSON of a number or a word.
    fn scalar(&self, text: &str) -> Option<String> {
        let word = match (self.notation, text) {
            (Notation::Python, "True") => "true",
            (Notation::Python, "False") => "false",
            (Notation::Python, "None") => "null",
            (_, text) => text,
        };
        match (is_json(word), self.notation) {
            (true, _) => Some(word.to_owned()),
            (false, Notation::Marked(_)) if !is_beyond(text) => Some(quoted(text)),
            (false, _) => None,
        }
    }

    fn escaped(&mut self, c: char, json: &mut String) -> Result<(), Garbled> {
        let At::Escape { quote, key, digits } = &mut self.at else { return Err(Garbled) };
        let (quote, key) = (*quote, *key);
        if let Some((seen, wanted)) = digits {
            if !c.is_ascii_hexdigit() {
                return Err(Garbled);
            }
            seen.push(c);
            if seen.len() < *wanted {
                return Ok(());
            }
            let code = u32::from_str_radix(seen, 16).map_err(|_| Garbled)?;
            match char::from_u32(code) {
                Some(c) => escape(c, json),
                // Half a pair, as JSON writes it.
                None if code <= 0xffff => json.push_str(&format!("\\u{code:04x}")),
                None => return Err(Garbled),
            }
        } else {
            match c {
                'n' => escape('\n', json),
                't' => escape('\t', json),
                'r' => escape('\r', json),
                'b' => escape('\u{8}', json),
                'f' => escape('\u{c}', json),
                'x' | 'u' | 'U' => {
                    let wanted = match c {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    *digits = Some((String::new(), wanted));
                    return Ok(());
                }
                '\\' | '\'' | '"' | '/' => escape(c, json),
                // Python keeps the backslash before any other character.
                c => {
                    escape('\\', json);
                    escape(c, json);
                }
            }
        }
        self.at = At::Text { quote, key };
        Ok(())
    }

    fn close(&mut self, json: &mut String) -> Result<Step, Garbled> {
        let bracket = self.open.pop().ok_or(Garbled)?;
        json.push(if bracket == '}' { '}' } else { ']' });
        Ok(self.ended(false))
    }

    /// A value or a key has ended.
    fn ended(&mut self, key: bool) -> Step {
        self.at = if key { At::Colon } else { At::Next };
        if self.open.is_empty() { Step::Done } else { Step::More }
    }
}

/// JSON of a whole Python literal.
pub(super) fn from_python(text: &str) -> Option<String> {
    let (mut loose, mut json) = (Loose::new(Notation::Python), String::new());
    for (at, c) in text.char_indices() {
        match loose.push(c, &mut json).ok()? {
            Step::More => {}
            Step::Done if text[at + c.len_utf8()..].trim().is_empty() => return Some(json),
            Step::Done | Step::Before => return None,
        }
    }
    match &loose.at {
        At::Word { text, .. } if loose.open.is_empty() => loose.scalar(text.trim_end()),
        _ => None,
    }
}
