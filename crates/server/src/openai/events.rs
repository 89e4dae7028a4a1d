//! The objects around choices: id, time, model, usage; and the server-sent events of a stream.

use crate::error::ApiError;
use crate::generation::{Answer, Cost, Delta, Writer};
use axum::response::sse::Event;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
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

    /// The choices that a piece of the choice `index` makes, each for a chunk of its own.
    fn chunks(&mut self, index: usize, delta: Delta) -> Vec<Value>;
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
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{:x}{count:04x}", C::ID, since.as_micros());
        Self { id, created: since.as_secs(), model: model.to_owned(), usages, choices }
    }

    fn object(&self, kind: &str, choices: Vec<Value>, usage: Option<Value>) -> Value {
        let mut object =
            json!({ "id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices });
        if let Some(usage) = usage {
            object["usage"] = usage;
        }
        object
    }

    /// One choice's chunk. OpenAI's chunks say that the usage is null where a last one will say it.
    fn chunk(&self, choice: Value, cost: Cost) -> Event {
        let usage = if self.usages.each { Some(counts(cost)) } else { self.usages.last.then_some(Value::Null) };
        data(&self.object(C::CHUNK, vec![choice], usage))
    }
}

impl<C: Choices> Writer for Completion<C> {
    type Whole = Value;

    fn whole(self, answers: Vec<Answer>, cost: Cost) -> Value {
        let choices = answers.into_iter().enumerate().map(|(index, answer)| self.choices.choice(index, answer));
        self.object(C::OBJECT, choices.collect(), Some(usage(cost)))
    }

    fn delta(&mut self, choice: usize, delta: Delta, cost: Cost) -> Vec<Event> {
        let choices = self.choices.chunks(choice, delta);
        choices.into_iter().map(|choice| self.chunk(choice, cost)).collect()
    }

    fn end(&mut self, cost: Cost) -> Vec<Event> {
        let last = self.usages.last.then(|| data(&self.object(C::CHUNK, vec![], Some(usage(cost)))));
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
