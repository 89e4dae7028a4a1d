//! The object of a response and the items of its answer.

use super::items::PLAIN;
use crate::error::ApiError;
use crate::generation::Cost;
use serde_json::{Map, Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Beginnings of the ids of items.
pub(super) const REASONING: &str = "rs";
pub(super) const MESSAGE: &str = "msg";
pub(super) const CALL: &str = "fc";

/// What a response says of itself from the beginning.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// What its id and those of its items have behind their beginnings.
    pub secret: String,
    pub created: u64,
    pub model: String,
    /// What it repeats of the request.
    pub repeated: Map<String, Value>,
    /// Reasoning stands where summaries do.
    pub summary: bool,
    /// Items of reasoning carry it where encrypted reasoning stands.
    pub encrypted: bool,
}

/// State of a response.
#[derive(Debug, Clone)]
pub(super) enum Status {
    InProgress,
    Completed,
    /// The limit on its tokens was reached, or the context's end.
    Incomplete,
    Failed(ApiError),
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Frame {
    pub(super) fn id(&self) -> String {
        format!("resp_{}", self.secret)
    }

    /// The id of the answer's item of that number.
    pub(super) fn item_id(&self, kind: &str, number: usize) -> String {
        format!("{kind}_{}_{number}", self.secret)
    }

    /// The object, whose cost is known at its end.
    pub(super) fn object(&self, status: &Status, output: &[Value], cost: Option<Cost>) -> Value {
        let (word, incomplete, error) = match status {
            Status::InProgress => ("in_progress", Value::Null, Value::Null),
            Status::Completed => ("completed", Value::Null, Value::Null),
            Status::Incomplete => ("incomplete", json!({ "reason": "max_output_tokens" }), Value::Null),
            Status::Failed(error) => ("failed", Value::Null, failure(error)),
        };
        let mut object = json!({
            "id": self.id(), "object": "response", "created_at": self.created, "status": word,
            "completed_at": matches!(status, Status::Completed).then(now), "error": error,
            "incomplete_details": incomplete, "model": self.model, "output": output, "usage": cost.map(usage),
        });
        if let Value::Object(object) = &mut object {
            object.extend(self.repeated.clone());
        }
        object
    }

    /// An item of reasoning.
    pub(super) fn reasoning(&self, number: usize, text: &str, status: &str) -> Value {
        let done = status != "in_progress";
        let part = |kind: &str| if done { json!([{ "type": kind, "text": text }]) } else { json!([]) };
        let mut item =
            json!({ "id": self.item_id(REASONING, number), "type": "reasoning", "status": status, "summary": [] });
        match self.summary {
            true => item["summary"] = part("summary_text"),
            false => item["content"] = part("reasoning_text"),
        }
        if self.encrypted && done {
            item["encrypted_content"] = format!("{PLAIN}{text}").into();
        }
        item
    }

    /// An item of text.
    pub(super) fn message(&self, number: usize, text: &str, status: &str) -> Value {
        let content = if status == "in_progress" { json!([]) } else { json!([text_part(text)]) };
        json!({
            "id": self.item_id(MESSAGE, number), "type": "message", "role": "assistant", "status": status,
            "content": content,
        })
    }

    /// An item of a call.
    pub(super) fn call(&self, number: usize, name: &str, arguments: &str, status: &str) -> Value {
        json!({
            "id": self.item_id(CALL, number), "type": "function_call", "status": status, "name": name,
            "call_id": self.item_id("call", number), "arguments": arguments,
        })
    }
}

/// A part of a message.
pub(super) fn text_part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn failure(error: &ApiError) -> Value {
    let code = if error.status().as_u16() == 429 { "rate_limit_exceeded" } else { "server_error" };
    json!({ "code": code, "message": error.message() })
}

fn usage(cost: Cost) -> Value {
    json!({
        "input_tokens": cost.prompt_tokens,
        "input_tokens_details": { "cached_tokens": cost.cached_tokens, "cache_write_tokens": 0 },
        "output_tokens": cost.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": cost.reasoning_tokens },
        "total_tokens": cost.prompt_tokens + cost.completion_tokens,
    })
}
