//! The surroundings of choices: id, time, model name, usage, and the server-sent events of a stream.

use crate::answer;
use crate::error::ApiError;
use crate::params::{Params, StreamOptions};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use mlx_serving_engine::{Event, Usage};
use mlx_serving_runtime::{Events as EngineEvents, Generate};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time without an event after which a comment is sent: a client that has gone is noticed only when something is written.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// The fields that every object of one answer shares.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    id: String,
    created: u64,
    model: String,
}

/// Options of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streaming {
    /// A last chunk has the usage.
    include_usage: bool,
    /// Every chunk has the usage so far.
    continuous_usage: bool,
    /// Tokens of all prompts.
    prompt_tokens: usize,
    /// Choices of each prompt.
    n: usize,
}

impl Streaming {
    /// The stream's options if one is asked for.
    ///
    /// # Errors
    /// 400 for options of a stream that is none.
    pub(crate) fn of(params: &Params) -> Result<Option<Self>, ApiError> {
        let option = |of: fn(&StreamOptions) -> Option<bool>| params.stream_options.as_ref().and_then(of) == Some(true);
        let (include_usage, continuous_usage) = (option(|o| o.include_usage), option(|o| o.continuous_usage_stats));
        match params.stream.unwrap_or(false) {
            true => Ok(Some(Self { include_usage, continuous_usage, prompt_tokens: 0, n: 1 })),
            false if include_usage || continuous_usage => {
                Err(ApiError::invalid("stream_options", "stream_options needs stream to be true"))
            }
            false => Ok(None),
        }
    }

    /// The same for prompts of so many tokens in all, with `n` choices each.
    pub(crate) fn costing(self, prompt_tokens: usize, n: usize) -> Self {
        Self { prompt_tokens, n, ..self }
    }
}

impl Envelope {
    pub(crate) fn new(prefix: &str, model: &dyn Generate) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            id: format!("{prefix}-{:x}{count:04x}", since.as_micros()),
            created: since.as_secs(),
            model: model.card().id.clone(),
        }
    }

    /// One whole object.
    pub(crate) fn object(&self, kind: &str, choices: Vec<Value>, usage: Option<Value>) -> Value {
        let mut object =
            json!({ "id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices });
        if let Some(usage) = usage {
            object["usage"] = usage;
        }
        object
    }

    /// The answer as server-sent events. `write` writes the choices that one event of the choice with that index makes, each of which becomes
    /// a chunk; nothing is sent before the first. An error ends the stream with an error object. Dropping the body cancels the requests.
    pub(crate) fn stream<F>(
        self,
        kind: &'static str,
        streams: Vec<EngineEvents>,
        options: Streaming,
        write: F,
    ) -> Response
    where
        F: FnMut(usize, Event) -> Vec<Value> + Send + 'static,
    {
        let open = streams.len();
        let state = Events { envelope: self, kind, options, write, tokens: 0, usages: Vec::new(), open };
        let events = answer::merge(streams)
            .map(Some)
            .chain(stream::once(async { None }))
            .scan(state, |state, event| std::future::ready(state.next(event)))
            .flat_map(stream::iter)
            .map(Ok::<_, Infallible>);
        let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
        // Proxies must pass tokens on as they come.
        response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
        response
    }
}

/// Writer of a stream's events.
struct Events<F> {
    envelope: Envelope,
    kind: &'static str,
    options: Streaming,
    write: F,
    /// Tokens of all answers so far.
    tokens: usize,
    usages: Vec<(usize, Usage)>,
    /// Choices that have not ended.
    open: usize,
}

impl<F: FnMut(usize, Event) -> Vec<Value>> Events<F> {
    /// The chunks for one event; `None` (no more) after the end.
    fn next(&mut self, event: Option<(usize, Event)>) -> Option<Vec<sse::Event>> {
        let Some((index, event)) = event else {
            // The engine went away without ending every choice.
            return (self.open > 0)
                .then(|| self.fail(&ApiError::internal("the engine ended without finishing the answer")));
        };
        if self.open == 0 {
            return None;
        }
        let mut ends = false;
        match &event {
            Event::Failed(error) => return Some(self.fail(&ApiError::from(error.clone()))),
            Event::Token(_) => self.tokens += 1,
            Event::Finished(finish) => {
                self.usages.push((index, finish.usage));
                self.open -= 1;
                ends = self.open == 0;
            }
            Event::Prompt(_) => {}
        }
        let choices = (self.write)(index, event);
        let mut chunks: Vec<sse::Event> = choices.into_iter().map(|choice| self.chunk(choice)).collect();
        if ends {
            if self.options.include_usage {
                let usage = answer::usage(&self.usages, self.options.n);
                chunks.push(data(&self.envelope.object(self.kind, vec![], Some(usage))));
            }
            chunks.push(done());
        }
        Some(chunks)
    }

    /// One choice's chunk. OpenAI's chunks say that the usage is null where a last one will say it.
    fn chunk(&self, choice: Value) -> sse::Event {
        let usage = if self.options.continuous_usage {
            Some(answer::usage_so_far(self.options.prompt_tokens, self.tokens))
        } else {
            self.options.include_usage.then_some(Value::Null)
        };
        data(&self.envelope.object(self.kind, vec![choice], usage))
    }

    fn fail(&mut self, error: &ApiError) -> Vec<sse::Event> {
        self.open = 0;
        failure(error).into()
    }
}

fn data(object: &Value) -> sse::Event {
    sse::Event::default().data(object.to_string())
}

fn done() -> sse::Event {
    sse::Event::default().data("[DONE]")
}

/// The final events of a stream that fails.
fn failure(error: &ApiError) -> [sse::Event; 2] {
    [data(&error.to_json()), done()]
}

/// A stream that only fails; for the end of one that is cut off.
pub(crate) fn failed(error: &ApiError) -> Response {
    Sse::new(stream::iter(failure(error).map(Ok::<_, Infallible>))).into_response()
}
