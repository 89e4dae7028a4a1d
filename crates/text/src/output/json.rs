//! A checker of JSON that comes in pieces.

use super::step::{Garbled, Step};

/// Levels of lists and objects at most: what parsers of clients take.
pub(super) const MAX_DEPTH: usize = 128;
/// Characters of a number at most.
const MAX_NUMBER: usize = 1024;

/// One JSON value, checked a character at a time. Takes no memory but a bit of state a level, and the number that goes on.
///
/// A number has to be one that 64-bit floats have, because parsers of clients refuse others.
#[derive(Debug, Clone, Default)]
pub(super) struct Json {
    at: At,
    /// Open lists and objects; true for objects.
    open: Vec<bool>,
    /// The number that goes on.
    number: String,
}

/// Place in a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    /// Before a value; `]` may come where a list has none yet.
    #[default]
    Value,
    FirstItem,
    /// Before a key; `}` may come where an object has none yet.
    Key,
    FirstKey,
    Colon,
    /// Within a string, which may be a key.
    Text {
        key: bool,
    },
    Escape {
        key: bool,
    },
    /// So many hexadecimal digits are missing.
    Unicode {
        key: bool,
        missing: u8,
    },
    Number(Digits),
    /// The rest of `true`, `false` or `null`.
    Word(&'static str),
    /// Behind a value within a list or an object.
    Next,
    End,
}

/// Place in a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digits {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

impl Json {
    /// Takes the next character. Only a number ends before one.
    pub(super) fn push(&mut self, c: char) -> Result<Step, Garbled> {
        let space = matches!(c, ' ' | '\t' | '\n' | '\r');
        match self.at {
            At::Value | At::FirstItem | At::Key | At::FirstKey | At::Colon | At::Next if space => {
                return Ok(Step::More);
            }
            At::FirstItem if c == ']' => return self.close(false),
            At::FirstKey if c == '}' => return self.close(true),
            At::Value | At::FirstItem => self.value(c)?,
            At::Key | At::FirstKey if c == '"' => self.at = At::Text { key: true },
            At::Colon if c == ':' => self.at = At::Value,
            At::Next => match (c, self.open.last()) {
                (',', Some(true)) => self.at = At::Key,
                (',', Some(false)) => self.at = At::Value,
                (']' | '}', _) => return self.close(c == '}'),
                _ => return Err(Garbled),
            },
            At::Text { key } => match c {
                '"' if key => self.at = At::Colon,
                '"' => return Ok(self.ended()),
                '\\' => self.at = At::Escape { key },
                '\0'..='\u{1f}' => return Err(Garbled),
                _ => {}
            },
            At::Escape { key } => match c {
                '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => self.at = At::Text { key },
                'u' => self.at = At::Unicode { key, missing: 4 },
                _ => return Err(Garbled),
            },
            At::Unicode { key, missing } if c.is_ascii_hexdigit() => {
                self.at = if missing == 1 { At::Text { key } } else { At::Unicode { key, missing: missing - 1 } };
            }
            At::Number(digits) => match digits.next(c) {
                Some(_) if self.number.len() >= MAX_NUMBER => return Err(Garbled),
                Some(digits) => {
                    self.number.push(c);
                    self.at = At::Number(digits);
                }
                None if !self.is_number(digits) => return Err(Garbled),
                None if self.open.is_empty() => {
                    self.at = At::End;
                    return Ok(Step::Before);
                }
                None => {
                    self.at = At::Next;
                    return self.push(c);
                }
            },
            At::Word(rest) => match rest.strip_prefix(c) {
                Some("") => return Ok(self.ended()),
                Some(rest) => self.at = At::Word(rest),
                None => return Err(Garbled),
            },
            _ => return Err(Garbled),
        }
        Ok(Step::More)
    }

    /// True if the value would be whole with nothing more.
    pub(super) fn is_whole(&self) -> bool {
        match self.at {
            At::End => true,
            At::Number(digits) => self.open.is_empty() && self.is_number(digits),
            _ => false,
        }
    }

    fn value(&mut self, c: char) -> Result<(), Garbled> {
        self.at = match c {
            '"' => At::Text { key: false },
            '[' | '{' if self.open.len() == MAX_DEPTH => return Err(Garbled),
            '[' => At::FirstItem,
            '{' => At::FirstKey,
            '-' => At::Number(Digits::Minus),
            '0' => At::Number(Digits::Zero),
            '1'..='9' => At::Number(Digits::Whole),
            't' => At::Word("rue"),
            'f' => At::Word("alse"),
            'n' => At::Word("ull"),
            _ => return Err(Garbled),
        };
        match c {
            '[' | '{' => self.open.push(c == '{'),
            '-' | '0'..='9' => self.number = c.into(),
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self, object: bool) -> Result<Step, Garbled> {
        if self.open.pop() != Some(object) {
            return Err(Garbled);
        }
        Ok(self.ended())
    }

    /// True if the number would be whole with nothing more, and is no larger than floats are.
    fn is_number(&self, digits: Digits) -> bool {
        digits.is_whole() && self.number.parse().is_ok_and(f64::is_finite)
    }

    /// A value has ended with this character.
    fn ended(&mut self) -> Step {
        if self.open.is_empty() {
            self.at = At::End;
            return Step::Done;
        }
        self.at = At::Next;
        Step::More
    }
}

impl Digits {
    fn next(self, c: char) -> Option<Self> {
        Some(match (self, c) {
            (Self::Minus, '0') => Self::Zero,
            (Self::Minus, '1'..='9') | (Self::Whole, '0'..='9') => Self::Whole,
            (Self::Zero | Self::Whole, '.') => Self::Point,
            (Self::Point | Self::Fraction, '0'..='9') => Self::Fraction,
            (Self::Zero | Self::Whole | Self::Fraction, 'e' | 'E') => Self::Exponent,
            (Self::Exponent, '+' | '-') => Self::Sign,
            (Self::Exponent | Self::Sign | Self::Power, '0'..='9') => Self::Power,
            _ => return None,
        })
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::Power)
    }
}

/// True if a text is a number that is larger than floats are.
pub(super) fn is_beyond(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && text.parse().is_ok_and(f64::is_infinite)
}

/// True if a text is one JSON value.
pub(super) fn is_json(text: &str) -> bool {
    let mut json = Json::default();
    for (at, c) in text.char_indices() {
        match json.push(c) {
            Ok(Step::More) => {}
            Ok(Step::Done) => return text[at + c.len_utf8()..].trim_ascii().is_empty(),
            Ok(Step::Before) => return text[at..].trim_ascii().is_empty(),
            Err(Garbled) => return false,
        }
    }
    json.is_whole()
}

/// A character as it stands within a JSON string.
pub(super) fn escape(c: char, to: &mut String) {
    match c {
        '"' => to.push_str("\\\""),
        '\\' => to.push_str("\\\\"),
        '\n' => to.push_str("\\n"),
        '\r' => to.push_str("\\r"),
        '\t' => to.push_str("\\t"),
        '\0'..='\u{1f}' => to.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => to.push(c),
    }
}

/// A text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    text.chars().for_each(|c| escape(c, &mut json));
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn agrees(text: &str) {
        assert_eq!(is_json(text), serde_json::from_str::<Value>(text).is_ok(), "{text:?}");
    }

    #[test]
    fn values_are_json_where_serde_json_says_so() {
        for text in [
            "",
            "{}",
            "[]",
            "[1,]",
            "{,}",
            r#"{"a":1,}"#,
            r#"{"a" : [1, -0.5e+3, true, null, "\u00e9\n"] } "#,
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e5",
            "1e308",
            "1e309",
            "-1e999",
            "[1e999]",
            "-0",
            "nul",
            "null",
            "nulls",
            "tru e",
            "\"\n\"",
            r#""\x""#,
            r#""\u12g4""#,
            "[1}",
            "{]",
            "1 2",
            "[1 2]",
            r#"{"a"}"#,
            r#"{1:2}"#,
            "  7 ",
            "[[[]]]",
            r#"{"a":{"b":{}}}"#,
            "\u{a0}1",
            "]",
            "}",
            ",",
        ] {
            agrees(text);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(is_json(&nested(MAX_DEPTH)));
        assert!(!is_json(&nested(MAX_DEPTH + 1)));
    }

    proptest! {
        #[test]
        fn any_text_is_judged_as_serde_json_judges_it(text in r#"[\[\]{}",:0-2.eE+\-tfn\\u a]{0,14}"#) {
            agrees(&text);
        }

        #[test]
        fn quoted_text_reads_as_itself(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&quoted(&text)).unwrap(), text);
        }
    }
}
