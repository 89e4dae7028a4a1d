//! Answers: one message, whole or as the events of a stream.

use super::errors;
use super::request::Details;
use crate::error::ApiError;
use crate::generation::{Answer, Call, Cost, Delta, Ending, Told, Writer};
use crate::ids::unique;
use axum::response::sse::Event;
use mlx_serving_engine::FinishReason;
use mlx_serving_text::Segment;
use serde_json::{Map, Value, json};

/// Signature of reasoning. Clients send it again with the reasoning, and nothing reads it.
const SIGNATURE: &str = "mlx-serving";

/// Writes a message.
#[derive(Debug)]
pub(super) struct MessageWriter {
    id: String,
    model: String,
    details: Details,
    /// The block that has begun, and its number.
    open: Option<Kind>,
    blocks: usize,
    told: Told,
    end: Option<(FinishReason, Option<String>)>,
}

/// A kind of block.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Thinking,
    Call,
}

impl MessageWriter {
    /// A new message of the model of that name.
    pub(super) fn new(model: &str, details: Details) -> Self {
        let (id, model) = (unique("msg_"), model.to_owned());
        Self { id, model, details, open: None, blocks: 0, told: Told::default(), end: None }
    }

    fn message(&self, content: Vec<Value>, end: Value, cost: Cost) -> Value {
        let mut message = json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": end["stop_reason"], "stop_sequence": end["stop_sequence"],
            "usage": usage(cost),
        });
        message["usage"]["service_tier"] = "standard".into();
        if self.details.edits {
            message["context_management"] = unedited();
        }
        message
    }

    /// Reason for the end, as this dialect has it.
    fn ending(&self, ending: Option<Ending>, stop: Option<String>, tokens: usize) -> Value {
        let reason = match (ending, &stop) {
            (Some(Ending::Length), _) if tokens < self.details.max_tokens => "model_context_window_exceeded",
            (Some(Ending::Length), _) => "max_tokens",
            (Some(Ending::Calls), _) => "tool_use",
            (_, Some(_)) => "stop_sequence",
            (Some(Ending::Stop | Ending::Malformed | Ending::Canceled) | None, None) => "end_turn",
        };
        json!({ "stop_reason": reason, "stop_sequence": stop.filter(|_| reason == "stop_sequence") })
    }

    /// The events for a piece of text, with those that end the block before it if it is of another kind.
    fn piece(&mut self, segment: Segment) -> Vec<Event> {
        self.told.take(&segment);
        let (kind, delta) = match segment {
            Segment::Unfinished(_) => return vec![],
            Segment::Content(text) | Segment::Malformed(text) => {
                (Kind::Text, json!({ "type": "text_delta", "text": text }))
            }
            Segment::Reasoning(text) => (Kind::Thinking, json!({ "type": "thinking_delta", "thinking": text })),
            Segment::Call { name } => {
                let block = json!({ "type": "tool_use", "id": unique("toolu_"), "name": name, "input": {} });
                return self.begin_block(Kind::Call, &block);
            }
            Segment::Arguments(text) => (Kind::Call, json!({ "type": "input_json_delta", "partial_json": text })),
        };
        let mut events = match (kind, self.open) {
            (kind, Some(open)) if kind == open => vec![],
            (Kind::Text, _) => self.begin_block(kind, &json!({ "type": "text", "text": "" })),
            (Kind::Thinking, _) => {
                self.begin_block(kind, &json!({ "type": "thinking", "thinking": "", "signature": "" }))
            }
            // Arguments belong to the call before them.
            (Kind::Call, _) => return vec![],
        };
        if !(kind == Kind::Thinking && self.details.hides_thinking) {
            events.push(self.delta_of_block(&delta));
        }
        events
    }

    fn begin_block(&mut self, kind: Kind, block: &Value) -> Vec<Event> {
        let mut events = self.end_block();
        self.open = Some(kind);
        let start = json!({ "type": "content_block_start", "index": self.blocks, "content_block": block });
        events.push(event(&start));
        events
    }

    fn delta_of_block(&self, delta: &Value) -> Event {
        event(&json!({ "type": "content_block_delta", "index": self.blocks, "delta": delta }))
    }

    fn end_block(&mut self) -> Vec<Event> {
        let Some(kind) = self.open.take() else { return vec![] };
        let signature = json!({ "type": "signature_delta", "signature": SIGNATURE });
        let signature = (kind == Kind::Thinking).then(|| self.delta_of_block(&signature));
        let stop = event(&json!({ "type": "content_block_stop", "index": self.blocks }));
        self.blocks += 1;
        signature.into_iter().chain([stop]).collect()
    }
}

impl Writer for MessageWriter {
    type Whole = Value;

    const SILENCE: Option<fn() -> Event> = Some(|| event(&json!({ "type": "ping" })));

    fn whole(self, answers: Vec<Answer>, cost: Cost) -> Value {
        let answer = answers.into_iter().next().unwrap_or_default();
        let end = self.ending(answer.ending(), answer.stop, cost.completion_tokens);
        let mut content = Vec::new();
        if !answer.reasoning.is_empty() {
            let thinking = if self.details.hides_thinking { String::new() } else { answer.reasoning };
            content.push(json!({ "type": "thinking", "thinking": thinking, "signature": SIGNATURE }));
        }
        if !answer.text.is_empty() {
            content.push(json!({ "type": "text", "text": answer.text }));
        }
        content.extend(answer.calls.into_iter().map(call));
        self.message(content, end, cost)
    }

    fn begin(&mut self, cost: Cost) -> Vec<Event> {
        let message = self.message(vec![], json!({ "stop_reason": null, "stop_sequence": null }), cost);
        vec![event(&json!({ "type": "message_start", "message": message }))]
    }

    fn delta(&mut self, _: usize, delta: Delta, _: Cost) -> Vec<Event> {
        match delta {
            Delta::Text { segments, .. } => segments.into_iter().flat_map(|segment| self.piece(segment)).collect(),
            Delta::Done { reason, stop } => {
                self.end = Some((reason, stop));
                vec![]
            }
            Delta::Prompt(_) => vec![],
        }
    }

    fn end(&mut self, cost: Cost) -> Vec<Event> {
        let mut events = self.end_block();
        let (reason, stop) = self.end.take().unzip();
        let ending = reason.map(|reason| self.told.ending(reason));
        let end = self.ending(ending, stop.flatten(), cost.completion_tokens);
        let mut delta = json!({ "type": "message_delta", "delta": end, "usage": usage(cost) });
        if self.details.edits {
            delta["context_management"] = unedited();
        }
        events.extend([event(&delta), event(&json!({ "type": "message_stop" }))]);
        events
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Event> {
        vec![errors::event(error)]
    }
}

/// A whole call. Its arguments are an object; if they were none, it would stay a text.
fn call(call: Call) -> Value {
    let arguments = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
    match serde_json::from_str::<Map<String, Value>>(arguments) {
        Ok(input) => json!({ "type": "tool_use", "id": unique("toolu_"), "name": call.name, "input": input }),
        Err(_) => json!({ "type": "text", "text": format!("{}: {}", call.name, call.arguments) }),
    }
}

/// Tokens of the prompt that were found in the prefix cache are no input tokens here.
fn usage(cost: Cost) -> Value {
    json!({
        "input_tokens": cost.prompt_tokens - cost.cached_tokens, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cost.cached_tokens, "output_tokens": cost.completion_tokens,
        "output_tokens_details": { "thinking_tokens": cost.reasoning_tokens },
    })
}

fn unedited() -> Value {
    json!({ "applied_edits": [] })
}

/// The event that an object's type names.
fn event(object: &Value) -> Event {
    let event = object["type"].as_str().map(|kind| Event::default().event(kind));
    event.unwrap_or_default().data(object.to_string())
}
