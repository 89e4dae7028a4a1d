//! What surrounds the choices: id, time, model name, usage, and the server-sent events of a stream.

use crate::answer;
use crate::error::ApiError;
use crate::params::StreamOptions;
use crate::state::ServedModel;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use mlx_serving_engine::{Event, Stream, Usage};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The fields that every object of one answer shares.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    id: String,
    created: u64,
    model: String,
}

/// How a stream is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streaming {
    include_usage: bool,
    /// Choices of each prompt.
    n: usize,
}

/// The stream's options if one is asked for.
pub(crate) fn streaming(
    stream: Option<bool>,
    options: Option<&StreamOptions>,
    n: Option<i64>,
) -> Result<Option<Streaming>, ApiError> {
    match (stream.unwrap_or(false), options) {
        (true, options) => {
            let include_usage = options.is_some_and(|o| o.include_usage);
            Ok(Some(Streaming { include_usage, n: n.map_or(1, |n| n.max(1) as usize) }))
        }
        (false, None) => Ok(None),
        (false, Some(_)) => Err(ApiError::invalid("stream_options", "stream_options needs stream to be true")),
    }
}

impl Envelope {
    pub(crate) fn new(prefix: &str, model: &ServedModel) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            id: format!("{prefix}-{:x}{count:04x}", since.as_micros()),
            created: since.as_secs(),
            model: model.id.clone(),
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

    /// The answer as server-sent events. `choice` writes the choice of one chunk: first with `None` for each choice, then with
    /// each event. An error ends the stream with an error object. Dropping the body cancels the requests.
    pub(crate) fn stream<F>(
        self,
        kind: &'static str,
        streams: Vec<Stream>,
        options: Streaming,
        mut choice: F,
    ) -> Response
    where
        F: FnMut(&Envelope, usize, Option<&Event>) -> Option<Value> + Send + 'static,
    {
        let choices = streams.len();
        let opening: Vec<Value> = (0..choices).filter_map(|i| choice(&self, i, None)).collect();
        let opening: Vec<_> = opening.into_iter().map(|c| self.event(kind, vec![c], options.include_usage)).collect();
        let state = State { envelope: self, kind, options, choice, usages: Vec::new(), open: choices };
        let body = answer::merge(streams)
            .map(Some)
            .chain(stream::once(async { None }))
            .scan(state, |state, event| std::future::ready(state.next(event)))
            .flat_map(stream::iter);
        let events = stream::iter(opening).chain(body).map(Ok::<_, Infallible>);
        let mut response =
            Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response();
        // Proxies must pass tokens on as they come.
        response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
        response
    }

    fn event(&self, kind: &str, choices: Vec<Value>, null_usage: bool) -> sse::Event {
        let usage = null_usage.then_some(Value::Null);
        sse::Event::default().data(self.object(kind, choices, usage).to_string())
    }
}

struct State<F> {
    envelope: Envelope,
    kind: &'static str,
    options: Streaming,
    choice: F,
    usages: Vec<(usize, Usage)>,
    /// Choices that have not ended.
    open: usize,
}

impl<F: FnMut(&Envelope, usize, Option<&Event>) -> Option<Value>> State<F> {
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
        if let Event::Failed(error) = event {
            return Some(self.fail(&ApiError::from(error)));
        }
        let mut chunks: Vec<sse::Event> = (self.choice)(&self.envelope, index, Some(&event))
            .map(|choice| self.envelope.event(self.kind, vec![choice], self.options.include_usage))
            .into_iter()
            .collect();
        if let Event::Finished(finish) = event {
            self.usages.push((index, finish.usage));
            self.open -= 1;
            if self.open == 0 {
                if self.options.include_usage {
                    let object =
                        self.envelope.object(self.kind, vec![], Some(answer::usage(&self.usages, self.options.n)));
                    chunks.push(sse::Event::default().data(object.to_string()));
                }
                chunks.push(sse::Event::default().data("[DONE]"));
            }
        }
        Some(chunks)
    }

    fn fail(&mut self, error: &ApiError) -> Vec<sse::Event> {
        self.open = 0;
        vec![sse::Event::default().data(error.to_json().to_string()), sse::Event::default().data("[DONE]")]
    }
}
