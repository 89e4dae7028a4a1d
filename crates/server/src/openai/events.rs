//! The objects around choices: id, time, model, usage; and the server-sent events of a stream.

use crate::error::ApiError;
use crate::generation::{Answer, Cost, Delta, Ending, Writer};
use crate::ids::unique;
use axum::response::sse::Event;
use serde_json::{Map, Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// One route's choices.
pub(crate) trait Choices: Send + 'static {
    /// Beginning of the ids of its objects.
    const ID: &'static str;
    /// Type of a whole object.
    const OBJECT: &'static str;
    /// Type of a stream's objects.
    const CHUNK: &'static str;

    /// A whole choice.
    fn choice(&self, index: usize, answer: Answer) -> Value;

    /// Fields of a whole object beside its choices.
    fn beside(&self, _: &[Answer]) -> Map<String, Value> {
        Map::new()
    }

    /// The chunks that a piece of the choice `index` makes.
    fn chunks(&mut self, index: usize, delta: Delta) -> Vec<Chunk>;
}

/// A chunk of a stream.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub choice: Value,
    /// Fields beside the choice.
    pub beside: Map<String, Value>,
}

impl From<Value> for Chunk {
    fn from(choice: Value) -> Self {
        Self { choice, beside: Map::new() }
    }
}

/// Why a choice ended, as both routes tell it: OpenAI's reason, and vLLM's `stop_reason`, which is the stop string, or says that a call could
/// not be read: OpenAI has no reason for that.
pub(crate) fn ended(ending: Option<Ending>, stop: Option<String>) -> (Option<&'static str>, Value) {
    match ending {
        None => (None, Value::Null),
        Some(Ending::Stop) => (Some("stop"), json!(stop)),
        Some(Ending::Length) => (Some("length"), Value::Null),
        Some(Ending::Canceled) => (Some("canceled"), Value::Null),
        Some(Ending::Calls) => (Some("tool_calls"), Value::Null),
        Some(Ending::Malformed) => (Some("stop"), json!("malformed_tool_call")),
    }
}

/// Chunks of a stream that say what it costs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usages {
    /// A last chunk behind the others says the usage.
    pub last: bool,
    /// Every chunk says the usage, as far as it is known.
    pub each: bool,
}

/// Writes a route's answers.
#[derive(Debug)]
pub(crate) struct Completion<C> {
    id: String,
    created: u64,
    model: String,
    usages: Usages,
    choices: C,
}

impl<C: Choices> Completion<C> {
    /// A new answer of the model of that name.
    pub(crate) fn new(model: &str, usages: Usages, choices: C) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { id: unique(C::ID), created: since.as_secs(), model: model.to_owned(), usages, choices }
    }

    fn object(&self, kind: &str, choices: Vec<Value>, beside: Map<String, Value>, usage: Option<Value>) -> Value {
        let mut object =
            json!({ "id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices });
        beside.into_iter().chain(usage.map(|usage| ("usage".to_owned(), usage))).for_each(|(name, value)| {
            object[name] = value;
        });
        object
    }

    /// One choice's chunk. OpenAI's chunks say that the usage is null where a last one will say it.
    fn chunk(&self, chunk: Chunk, cost: Cost) -> Event {
        let usage = if self.usages.each { Some(counts(cost)) } else { self.usages.last.then_some(Value::Null) };
        data(&self.object(C::CHUNK, vec![chunk.choice], chunk.beside, usage))
    }
}

impl<C: Choices> Writer for Completion<C> {
    type Whole = Value;

    fn whole(self, answers: Vec<Answer>, cost: Cost) -> Value {
        let beside = self.choices.beside(&answers);
        let choices = answers.into_iter().enumerate().map(|(index, answer)| self.choices.choice(index, answer));
        self.object(C::OBJECT, choices.collect(), beside, Some(usage(cost)))
    }

    fn delta(&mut self, choice: usize, delta: Delta, cost: Cost) -> Vec<Event> {
        let chunks = self.choices.chunks(choice, delta);
        chunks.into_iter().map(|chunk| self.chunk(chunk, cost)).collect()
    }

    fn end(&mut self, cost: Cost) -> Vec<Event> {
        let last = self.usages.last.then(|| data(&self.object(C::CHUNK, vec![], Map::new(), Some(usage(cost)))));
        last.into_iter().chain([done()]).collect()
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Event> {
        vec![data(&error.to_json()), done()]
    }
}

/// OpenAI's usage object.
fn usage(cost: Cost) -> Value {
    let mut usage = counts(cost);
    usage["prompt_tokens_details"] = json!({ "cached_tokens": cost.cached_tokens });
    usage["completion_tokens_details"] = json!({ "reasoning_tokens": cost.reasoning_tokens });
    usage
}

/// The same as far as it is known before the end.
fn counts(cost: Cost) -> Value {
    let (prompt, completion) = (cost.prompt_tokens, cost.completion_tokens);
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
}

fn data(object: &Value) -> Event {
    Event::default().data(object.to_string())
}

fn done() -> Event {
    Event::default().data("[DONE]")
}
