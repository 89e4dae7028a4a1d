//! Entry points for fuzzing: bytes from the network, parsed as far as they can be without a model.

use crate::openai::{ChatRequest, CompletionRequest};
use crate::request::parse;

/// A chat completion's body. Whatever the bytes, this returns.
pub fn chat_body(data: &[u8]) {
    if let Ok(request) = parse::<ChatRequest>(data) {
        request.check();
    }
}

/// A completion's body.
pub fn completion_body(data: &[u8]) {
    if let Ok(request) = parse::<CompletionRequest>(data) {
        request.check();
    }
}
