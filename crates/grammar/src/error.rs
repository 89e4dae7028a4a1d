/// A structure that cannot be compiled, or an answer that cannot go on under its grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The structure is at fault, or beyond what is supported.
    #[error("{message}")]
    Structure {
        /// Reason, which names the keyword and the place.
        message: String,
    },
    /// Too many structures are being compiled.
    #[error("too many grammars are being compiled; try again later")]
    Busy,
    /// Nobody waits for the grammar any more.
    #[error("the grammar is no longer waited for")]
    Canceled,
    /// An answer cannot go on: a step took more work than it may, was canceled, or a token came that the grammar does not allow.
    #[error("the grammar cannot go on: {message}")]
    Step {
        /// Reason.
        message: String,
    },
}

impl GrammarError {
    pub(crate) fn structure(message: impl Into<String>) -> Self {
        Self::Structure { message: message.into() }
    }

    pub(crate) fn step(error: &anyhow::Error) -> Self {
        Self::Step { message: reason(error) }
    }
}

/// Characters of an error of llguidance that are handed on.
const MAX_REASON: usize = 500;

/// An error of llguidance in one line, without the backtrace or the state of its parser.
pub(crate) fn reason(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let end = ["<backtrace>", "<state>", "<non-verbose/>"]
        .iter()
        .filter_map(|mark| text.find(mark))
        .min()
        .unwrap_or(text.len());
    let words: Vec<&str> = text[..end].split_whitespace().collect();
    plain(&words.join(" ")).chars().take(MAX_REASON).collect()
}

/// An error of llguidance in a user's words: places are lines and columns, and nothing is listed that only its authors know.
pub(crate) fn plain(text: &str) -> String {
    const LOOK: &str = "lookarounds not supported yet; ";
    let text = text.find("; following special tokens are available").map_or(text, |end| &text[..end]);
    let bare = text.strip_prefix("at ").unwrap_or(text);
    let placed = || {
        let (line, rest) = bare.split_once('(')?;
        let (column, rest) = rest.split_once("): ")?;
        let (line, column): (usize, usize) = (line.parse().ok()?, column.parse().ok()?);
        Some(format!("line {line}, column {column}: {rest}"))
    };
    let text = placed().unwrap_or_else(|| text.to_owned());
    match text.find(LOOK) {
        Some(at) => {
            let named = &text[at + LOOK.len()..];
            let what = match named.starts_with("Word") {
                true => "word boundaries (`\\b`) are not supported",
                false => "`^` and `$` are supported at the ends only",
            };
            format!("{}{what}", &text[..at])
        }
        None => text,
    }
}
