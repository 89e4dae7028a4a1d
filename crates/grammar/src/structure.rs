use crate::error::GrammarError;
use serde_json::Value;

/// Bytes of a structure at most. Schemas of agents' tools have up to 64 KiB; compiling this much takes less than a second.
const MAX_BYTES: usize = 256 << 10;
/// Levels of a JSON value at most, those of a schema's annotations included.
const MAX_DEPTH: usize = 256;

/// Form that an answer must have.
#[derive(Debug, Clone, PartialEq)]
pub enum Structure {
    /// Any JSON object.
    Object,
    /// JSON that a schema allows.
    Schema(Value),
    /// A text that a regular expression matches as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A text of a context-free grammar, in the notation of Lark.
    Lark(String),
}

impl Structure {
    /// A text that no other structure has, if this one is within its bounds.
    pub(crate) fn key(&self) -> Result<String, GrammarError> {
        let (bytes, deep) = match self {
            Self::Object => (0, false),
            Self::Schema(schema) => {
                let mut left = MAX_BYTES;
                match fits(schema, MAX_DEPTH, &mut left) {
                    Some(deep) => (MAX_BYTES - left, deep),
                    None => (usize::MAX, false),
                }
            }
            Self::Regex(text) | Self::Lark(text) => (text.len(), false),
            Self::Choice(texts) => (texts.iter().map(|text| text.len() + 1).sum(), false),
        };
        let name = self.name();
        if deep {
            return Err(GrammarError::structure(format!("{name}: more than {MAX_DEPTH} levels")));
        }
        if bytes > MAX_BYTES {
            return Err(GrammarError::structure(format!("{name}: more than {} KiB", MAX_BYTES >> 10)));
        }
        Ok(match self {
            Self::Object => name.to_owned(),
            Self::Schema(schema) => format!("{name} {schema}"),
            Self::Regex(text) | Self::Lark(text) => format!("{name} {text}"),
            Self::Choice(texts) => format!("{name} {}", Value::from(texts.clone())),
        })
    }

    /// An error of llguidance about it.
    pub(crate) fn fault(&self, reason: &str) -> GrammarError {
        let reason = match reason {
            reason if reason.contains("oneOf constraints") => {
                "`oneOf` is supported where the alternatives exclude each other by their types, or by a property that all require and that has \
                 another `const` in each; use `anyOf` otherwise"
            }
            reason if reason.starts_with("NoExtensionBias") => "it allows no text at all",
            reason => reason,
        };
        GrammarError::structure(format!("{}: {reason}", self.name()))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Object | Self::Schema(_) => "schema",
            Self::Regex(_) => "regular expression",
            Self::Choice(_) => "choice",
            Self::Lark(_) => "grammar",
        }
    }
}

/// Takes the bytes of a value, about as JSON writes them, off those that are left. True if it has too many levels; `None` if it has too
/// many bytes.
fn fits(value: &Value, depth: usize, left: &mut usize) -> Option<bool> {
    let mut take = |bytes: usize| left.checked_sub(bytes).map(|rest| *left = rest);
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => take(4)?,
        Value::String(text) => take(text.len() + 2)?,
        Value::Array(_) | Value::Object(_) if depth == 0 => return Some(true),
        Value::Array(items) => {
            take(2)?;
            for item in items {
                if fits(item, depth - 1, left)? {
                    return Some(true);
                }
            }
        }
        Value::Object(fields) => {
            take(2)?;
            for (key, value) in fields {
                *left = left.checked_sub(key.len() + 4)?;
                if fits(value, depth - 1, left)? {
                    return Some(true);
                }
            }
        }
    }
    Some(false)
}
