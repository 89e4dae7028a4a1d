//! Entry points for fuzzing: bytes from the network, parsed as far as they can be without a model.

use crate::anthropic::MessagesRequest;
use crate::openai::{ChatRequest, CompletionRequest, EmbeddingRequest};
use crate::request::parse;
use crate::responses::ResponseRequest;

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

/// A body of a request for embeddings.
pub fn embedding_body(data: &[u8]) {
    if let Ok(request) = parse::<EmbeddingRequest>(data) {
        request.check();
    }
}

/// A message's body.
pub fn message_body(data: &[u8]) {
    if let Ok(request) = parse::<MessagesRequest>(data) {
        request.check();
    }
}

/// A response's body.
pub fn response_body(data: &[u8]) {
    if let Ok(request) = parse::<ResponseRequest>(data) {
        request.check();
    }
}
