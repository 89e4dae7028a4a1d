//! Answers: a response, whole or as the numbered events of a stream.

use super::object::{CALL, Frame, MESSAGE, REASONING, Status, text_part};
use crate::error::ApiError;
use crate::generation::{Answer, Call, Cost, Delta, Writer};
use crate::stored::Store;
use axum::response::sse::Event;
use mlx_serving_engine::FinishReason;
use mlx_serving_runtime::Message;
use mlx_serving_text::Segment;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::sync::Arc;

/// Writes a response.
#[derive(Debug)]
pub(super) struct ResponseWriter {
    frame: Frame,
    /// Where it is kept, and the conversation that it answers.
    keep: Option<(Arc<Store>, Vec<Message>)>,
    /// Events so far.
    events: u64,
    /// Items that have ended.
    output: Vec<Value>,
    open: Option<Open>,
    finish: Option<FinishReason>,
}

/// The item that has begun.
#[derive(Debug)]
enum Open {
    Reasoning(String),
    Message(String),
    Call { name: String, arguments: String },
}

impl ResponseWriter {
    pub(super) fn new(frame: Frame, keep: Option<(Arc<Store>, Vec<Message>)>) -> Self {
        Self { frame, keep, events: 0, output: Vec::new(), open: None, finish: None }
    }

    /// The response at its end.
    fn finished(&mut self, cost: Cost) -> (Status, Value) {
        let status = if self.finish == Some(FinishReason::Length) { Status::Incomplete } else { Status::Completed };
        let response = self.frame.object(&status, &self.output, Some(cost));
        if let Some((store, conversation)) = self.keep.take() {
            store.keep(&self.frame.id(), response.to_string(), conversation);
        }
        (status, response)
    }

    /// The next event, of that type and with these fields.
    fn event(&mut self, kind: &str, fields: Value) -> Event {
        let mut object = json!({ "type": kind, "sequence_number": self.events });
        if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
            object.extend(fields);
        }
        self.events += 1;
        Event::default().event(kind).data(object.to_string())
    }

    /// An event about a part of the item that is open or ends.
    fn of_item(&mut self, kind: &str, item: &Open, mut fields: Value) -> Event {
        let number = self.output.len();
        let of = match item {
            Open::Reasoning(_) => REASONING,
            Open::Message(_) => MESSAGE,
            Open::Call { .. } => CALL,
        };
        fields["item_id"] = self.frame.item_id(of, number).into();
        fields["output_index"] = number.into();
        self.event(kind, fields)
    }

    /// An item that is open or ends.
    fn item(&self, item: &Open, status: &str) -> Value {
        let number = self.output.len();
        match item {
            Open::Reasoning(text) => self.frame.reasoning(number, text, status),
            Open::Message(text) => self.frame.message(number, text, status),
            Open::Call { name, arguments } => self.frame.call(number, name, arguments, status),
        }
    }

    /// Status of text or a call that ends: a call that was cut off, or broken off in markup that cannot be read, is not whole.
    fn status(&self, item: &Open) -> &'static str {
        let cut = self.finish == Some(FinishReason::Length);
        let whole = match item {
            Open::Call { arguments, .. } if arguments.trim().is_empty() => !cut,
            Open::Call { arguments, .. } => serde_json::from_str::<IgnoredAny>(arguments).is_ok(),
            Open::Reasoning(_) | Open::Message(_) => !cut,
        };
        if whole { "completed" } else { "incomplete" }
    }

    /// Names of the events about parts of reasoning, and of their place.
    fn reasoning_events(&self) -> [&'static str; 5] {
        match self.frame.summary {
            true => [
                "response.reasoning_summary_part.added",
                "response.reasoning_summary_text.delta",
                "response.reasoning_summary_text.done",
                "response.reasoning_summary_part.done",
                "summary_index",
            ],
            false => [
                "response.content_part.added",
                "response.reasoning_text.delta",
                "response.reasoning_text.done",
                "response.content_part.done",
                "content_index",
            ],
        }
    }

    fn reasoning_part(&self, text: &str) -> Value {
        json!({ "type": if self.frame.summary { "summary_text" } else { "reasoning_text" }, "text": text })
    }

    /// The events that end the open item, and those that begin another.
    fn begin_item(&mut self, open: Open) -> Vec<Event> {
        let mut events = self.end_item();
        let (item, output_index) = (self.item(&open, "in_progress"), self.output.len());
        events.push(self.event("response.output_item.added", json!({ "output_index": output_index, "item": item })));
        match &open {
            Open::Reasoning(_) => {
                let ([added, .., index], part) = (self.reasoning_events(), self.reasoning_part(""));
                events.push(self.of_item(added, &open, json!({ index: 0, "part": part })));
            }
            Open::Message(_) => {
                let fields = json!({ "content_index": 0, "part": text_part("") });
                events.push(self.of_item("response.content_part.added", &open, fields));
            }
            Open::Call { .. } => {}
        }
        self.open = Some(open);
        events
    }

    /// The events that end the open item, if there is one.
    fn end_item(&mut self) -> Vec<Event> {
        let Some(open) = self.open.take() else { return vec![] };
        let item = self.item(&open, self.status(&open));
        let mut events = match &open {
            Open::Reasoning(text) => {
                let ([_, _, text_done, part_done, index], part) = (self.reasoning_events(), self.reasoning_part(text));
                vec![
                    self.of_item(text_done, &open, json!({ index: 0, "text": text })),
                    self.of_item(part_done, &open, json!({ index: 0, "part": part })),
                ]
            }
            Open::Message(text) => {
                let part = json!({ "content_index": 0, "part": text_part(text) });
                let text = json!({ "content_index": 0, "text": text, "logprobs": [] });
                vec![
                    self.of_item("response.output_text.done", &open, text),
                    self.of_item("response.content_part.done", &open, part),
                ]
            }
            Open::Call { name, arguments } => {
                let fields = json!({ "name": name, "arguments": arguments });
                vec![self.of_item("response.function_call_arguments.done", &open, fields)]
            }
        };
        let fields = json!({ "output_index": self.output.len(), "item": item });
        events.push(self.event("response.output_item.done", fields));
        self.output.push(item);
        events
    }

    /// The events for a piece of text, with those around it where it is of another kind than the one before.
    fn piece(&mut self, segment: Segment) -> Vec<Event> {
        let begins = match (&segment, &self.open) {
            (Segment::Content(_) | Segment::Malformed(_), Some(Open::Message(_)))
            | (Segment::Reasoning(_), Some(Open::Reasoning(_)))
            | (Segment::Arguments(_) | Segment::Unfinished(_), _) => None,
            (Segment::Content(_) | Segment::Malformed(_), _) => Some(Open::Message(String::new())),
            (Segment::Reasoning(_), _) => Some(Open::Reasoning(String::new())),
            (Segment::Call { name }, _) => Some(Open::Call { name: name.clone(), arguments: String::new() }),
        };
        let mut events = begins.map(|open| self.begin_item(open)).unwrap_or_default();
        let Some(mut open) = self.open.take() else { return events };
        let delta = match (&mut open, segment) {
            (Open::Message(text), Segment::Content(more) | Segment::Malformed(more)) => {
                *text += &more;
                Some(("response.output_text.delta", json!({ "content_index": 0, "delta": more, "logprobs": [] })))
            }
            (Open::Reasoning(text), Segment::Reasoning(more)) => {
                *text += &more;
                let [_, delta, .., index] = self.reasoning_events();
                Some((delta, json!({ index: 0, "delta": more })))
            }
            (Open::Call { arguments, .. }, Segment::Arguments(more)) => {
                *arguments += &more;
                Some(("response.function_call_arguments.delta", json!({ "delta": more })))
            }
            _ => None,
        };
        events.extend(delta.map(|(kind, fields)| self.of_item(kind, &open, fields)));
        self.open = Some(open);
        events
    }
}

impl Writer for ResponseWriter {
    type Whole = Value;

    /// Items stand in the order in which models write them.
    fn whole(mut self, answers: Vec<Answer>, cost: Cost) -> Value {
        let answer = answers.into_iter().next().unwrap_or_default();
        self.finish = answer.finish;
        let reasoning = Some(answer.reasoning).filter(|text| !text.is_empty()).map(Open::Reasoning);
        let calls = answer.calls.into_iter().map(|Call { name, arguments }| Open::Call { name, arguments });
        let says = !answer.text.is_empty() || (reasoning.is_none() && calls.len() == 0);
        let message = says.then_some(Open::Message(answer.text));
        let items: Vec<Open> = reasoning.into_iter().chain(message).chain(calls).collect();
        for (i, item) in items.iter().enumerate() {
            let last = i + 1 == items.len();
            let whole = !last && !matches!(item, Open::Call { .. });
            let status = if whole { "completed" } else { self.status(item) };
            self.output.push(self.item(item, status));
        }
        self.finished(cost).1
    }

    fn begin(&mut self, _: Cost) -> Vec<Event> {
        let response = self.frame.object(&Status::InProgress, &[], None);
        vec![
            self.event("response.created", json!({ "response": response })),
            self.event("response.in_progress", json!({ "response": response })),
        ]
    }

    fn delta(&mut self, _: usize, delta: Delta, _: Cost) -> Vec<Event> {
        match delta {
            Delta::Text { segments, .. } => segments.into_iter().flat_map(|segment| self.piece(segment)).collect(),
            Delta::Done { reason, .. } => {
                self.finish = Some(reason);
                vec![]
            }
            Delta::Prompt(_) => vec![],
        }
    }

    fn end(&mut self, cost: Cost) -> Vec<Event> {
        let mut events = Vec::new();
        if self.open.is_none() && self.output.is_empty() {
            events = self.begin_item(Open::Message(String::new()));
        }
        events.extend(self.end_item());
        let (status, response) = self.finished(cost);
        let kind = if matches!(status, Status::Incomplete) { "response.incomplete" } else { "response.completed" };
        events.push(self.event(kind, json!({ "response": response })));
        events
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Event> {
        let response = self.frame.object(&Status::Failed(error.clone()), &self.output, None);
        vec![self.event("response.failed", json!({ "response": response }))]
    }
}
