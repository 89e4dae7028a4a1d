//! Errors, in words for the person who has to act on them.

use std::path::PathBuf;

/// A tokenizer that cannot be loaded, or text that it cannot process.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The checkpoint has no such file.
    #[error("{path} is missing: {hint}")]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
        /// The remedy.
        hint: &'static str,
    },
    /// The checkpoint has sentencepiece's `tokenizer.model` only.
    #[error(
        "{path} is missing, and tokenizer.model beside it is not read: convert it with python3 -c \"from transformers import AutoTokenizer as T; \
         T.from_pretrained('{dir}', use_fast=True).save_pretrained('{dir}')\""
    )]
    Unconverted {
        /// The file that was looked for.
        path: PathBuf,
        /// The checkpoint's folder.
        dir: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not JSON.
    #[error("{path} is not valid JSON: {source}; download the model again")]
    Json {
        /// The file.
        path: PathBuf,
        /// The place and the reason.
        source: serde_json::Error,
    },
    /// The file is JSON, and a value in it is not what it must be.
    #[error("{path}: `{key}` must be {expected}, found {found}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Dotted path of the value.
        key: String,
        /// Values that would have been accepted.
        expected: &'static str,
        /// The start of what is there.
        found: String,
    },
    /// The `tokenizers` crate does not accept the file.
    #[error(
        "{path} is not a usable tokenizer: {reason}; download the model again, or save its tokenizer anew with transformers"
    )]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The crate's words.
        reason: String,
    },
    /// Two files of one checkpoint disagree about a token.
    #[error(
        "{path} gives the token {token:?} the id {declared}, but tokenizer.json beside it gives it {actual}: these files belong to different models"
    )]
    Contradiction {
        /// The file that declares the token.
        path: PathBuf,
        /// The token.
        token: String,
        /// Id of the token in that file.
        declared: u32,
        /// Id of the token in `tokenizer.json`, in words when it has none.
        actual: String,
    },
    /// The tokenizer failed on some text.
    #[error("the model's tokenizer cannot encode this text: {reason}")]
    Encode {
        /// The tokenizer's words.
        reason: String,
    },
    /// The text has more tokens than wanted.
    #[error("the text has {}{tokens} tokens; at most {limit} are taken", if *.exact { "" } else { "at least " })]
    TooLong {
        /// Tokens that were counted, those at the text's beginning and end included.
        tokens: usize,
        /// The text was counted to its end.
        exact: bool,
        /// Tokens that were wanted at most.
        limit: usize,
    },
    /// Canceled: the ids are not wanted any more.
    #[error("the text was not needed any more")]
    Canceled,
    /// A long text that cannot be tokenized piece by piece.
    #[error(
        "the text goes on for more than {kib} KiB without a place where the model's tokenizer can divide it: put spaces or line breaks into it, or send less"
    )]
    Undivided {
        /// Size that can be tokenized in one go.
        kib: usize,
    },
    /// The tokenizer failed on some ids.
    #[error("the model's tokenizer cannot decode these tokens: {reason}")]
    Decode {
        /// The tokenizer's words.
        reason: String,
    },
    /// A stop string without characters.
    #[error("stop string {index} is empty: every text contains it; leave it out")]
    EmptyStop {
        /// Position of the stop string in the list.
        index: usize,
    },
}

/// A chat template that cannot be used, or a conversation that it does not turn into a prompt.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TemplateError {
    /// The template is not valid Jinja.
    #[error(
        "the chat template in {origin} is broken at line {line}: {reason}; correct it, or give another with --chat-template FILE"
    )]
    Broken {
        /// The file it comes from.
        origin: String,
        /// Line of the template, from 1.
        line: usize,
        /// The fault there.
        reason: String,
    },
    /// There is no template in the file that holds them, or none for this conversation.
    #[error(
        "the chat template in {origin} cannot be used: {reason}; correct it, or give another with --chat-template FILE"
    )]
    Unusable {
        /// The file.
        origin: String,
        /// The fault of what is there.
        reason: String,
    },
    /// The template called `raise_exception`: it does not accept these messages.
    #[error("the model's chat template does not accept these messages: {message}")]
    Refused {
        /// The template's words.
        message: String,
    },
    /// The template is valid, and fails when it is rendered.
    #[error(
        "the chat template in {origin} fails at line {line}: {reason}; that is the template's fault and not the messages': correct it, or give another with --chat-template FILE"
    )]
    Failed {
        /// The file it comes from.
        origin: String,
        /// Line of the template, from 1.
        line: usize,
        /// The failure there.
        reason: String,
    },
    /// The template fails only because of the variables that the request sets.
    #[error(
        "the chat template fails at line {line} with the variables of this request: {reason}; leave them out, or correct them"
    )]
    Variables {
        /// Line of the template, from 1.
        line: usize,
        /// The failure there.
        reason: String,
    },
    /// A variable that cannot be given from outside.
    #[error("the template variable `{name}` is set from the request itself and cannot be given again: leave it out")]
    Reserved {
        /// Name of the variable.
        name: &'static str,
    },
    /// Rendering used up its budget of steps and bytes.
    #[error(
        "rendering the chat template took more than {budget} steps: shorten the conversation; if a short one fails too, the template is broken"
    )]
    TooCostly {
        /// The budget, in steps (64 bytes of text count as one).
        budget: u64,
    },
}

impl TemplateError {
    /// True when another request could succeed (HTTP 400), false when the template itself is at fault (HTTP 500).
    #[must_use]
    pub fn is_client_error(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::Unusable { .. } | Self::Failed { .. } => false,
            Self::Refused { .. } | Self::Variables { .. } | Self::Reserved { .. } | Self::TooCostly { .. } => true,
        }
    }
}
