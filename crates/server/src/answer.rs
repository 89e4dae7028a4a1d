//! Answers: runs the requests behind one HTTP request, and writes what comes, whole or as a stream.

use crate::admission::{Charge, Work, WorkPermit};
use crate::envelope::{Envelope, Streaming};
use crate::error::ApiError;
use crate::state::{AppState, admits};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, BoxStream, StreamExt};
use mlx_serving_engine::{Event, FinishReason, PromptToken, Request, TokenEvent, Usage};
use mlx_serving_runtime::{Events, Generate};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// One choice's answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub text: String,
    /// The prompt's tokens, where their log-probabilities were asked for.
    pub prompt: Vec<PromptToken>,
    pub tokens: Vec<TokenEvent>,
    pub finish: Option<FinishReason>,
    pub usage: Usage,
}

/// A route's way to write answers.
pub(crate) trait Writer: Send + 'static {
    /// Beginning of the ids of its objects.
    const ID: &'static str;
    /// Type of a whole object.
    const OBJECT: &'static str;
    /// Type of a stream's objects.
    const CHUNK: &'static str;

    /// The choices of whole answers.
    fn whole(self, answers: Vec<Answer>) -> Vec<Value>;

    /// The choices that an event of the choice `index` makes, each for a chunk of its own.
    fn chunks(&mut self, index: usize, event: Event) -> Vec<Value>;
}

/// Requests that are ready for the engine.
pub(crate) struct Prepared<W> {
    pub requests: Vec<Request>,
    /// Choices of each prompt.
    pub n: usize,
    pub streaming: Option<Streaming>,
    pub writer: W,
}

/// Answers all requests, or none.
///
/// # Errors
/// The engine's, and 400 or 503 where a whole answer cannot be held.
pub(crate) async fn respond<W: Writer>(
    state: &AppState,
    model: &dyn Generate,
    prepared: Prepared<W>,
) -> Result<Response, ApiError> {
    let Prepared { requests, n, streaming, mut writer } = prepared;
    if streaming.is_none() {
        state.unread.fits(&requests)?;
    }
    let prompt_tokens = requests.iter().step_by(n).map(|request| request.prompt.len()).sum();
    let streams = model.submit(requests)?;
    let envelope = Envelope::new(W::ID, model);
    if let Some(options) = streaming {
        let write = move |index: usize, event: Event| writer.chunks(index, event);
        return Ok(envelope.stream(W::CHUNK, streams, options.costing(prompt_tokens, n), write));
    }
    let charge = state.unread.charge();
    let answers = collect(streams, &charge).await?;
    let build = move || {
        let usages: Vec<(usize, Usage)> = answers.iter().map(|answer| answer.usage).enumerate().collect();
        envelope.object(W::OBJECT, writer.whole(answers), Some(usage(&usages, n)))
    };
    whole(state, charge, build).await
}

/// Waits for all choices, whose bytes are counted. Dropping the future cancels them.
async fn collect(streams: Vec<Events>, charge: &Charge) -> Result<Vec<Answer>, ApiError> {
    let answers = streams.into_iter().map(|mut stream| async move {
        let mut answer = Answer::default();
        while let Some(event) = stream.next().await {
            match event {
                Event::Prompt(run) => {
                    charge.prompt(&run)?;
                    answer.prompt.extend(run);
                }
                Event::Token(token) => {
                    charge.token(&token)?;
                    answer.text += &token.text;
                    answer.tokens.push(token);
                }
                Event::Finished(finish) => {
                    answer.text += &finish.text;
                    answer.finish = Some(finish.reason);
                    answer.usage = finish.usage;
                    return Ok(answer);
                }
                Event::Failed(error) => return Err(ApiError::from(error)),
            }
        }
        Err(ApiError::internal("the engine ended without finishing the answer"))
    });
    futures::future::try_join_all(answers).await
}

/// All choices' events as they come, each with its choice's index. Dropping the stream cancels them.
pub(crate) fn merge(streams: Vec<Events>) -> BoxStream<'static, (usize, Event)> {
    let indexed = streams.into_iter().enumerate().map(|(index, events)| events.map(move |event| (index, event)));
    stream::select_all(indexed).boxed()
}

/// OpenAI's usage object, summed over the choices, each with its index. The `n` choices of one prompt share its tokens.
pub(crate) fn usage(usages: &[(usize, Usage)], n: usize) -> Value {
    let completion: usize = usages.iter().map(|(_, u)| u.completion_tokens).sum();
    let firsts = || usages.iter().filter(|(index, _)| index.is_multiple_of(n)).map(|(_, u)| u);
    let cached: usize = firsts().map(|u| u.cached_tokens).sum();
    let mut usage = usage_so_far(firsts().map(|u| u.prompt_tokens).sum(), completion);
    usage["prompt_tokens_details"] = json!({ "cached_tokens": cached });
    usage
}

/// The usage as far as it is known before the end.
pub(crate) fn usage_so_far(prompt: usize, completion: usize) -> Value {
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
}

/// Runs `f`, which may take long on long texts, off the runtime's threads, if the model takes requests at all.
pub(crate) async fn off_thread<T: Send + 'static>(
    permit: WorkPermit,
    model: &Arc<dyn Generate>,
    f: impl FnOnce(&dyn Generate, &Work) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    admits(&**model)?;
    let model = model.clone();
    permit.work(move |work| f(&*model, work)).await
}

/// A whole answer as JSON: built off the runtime's threads where it is long, and counted until its last byte is out.
pub(crate) async fn whole<T: Serialize + Send + 'static>(
    state: &AppState,
    charge: Arc<Charge>,
    build: impl FnOnce() -> T + Send + 'static,
) -> Result<Response, ApiError> {
    let bytes = state.admission.build(charge.bytes(), move || serde_json::to_vec(&build())).await?;
    let bytes = bytes.map_err(|e| ApiError::internal(format!("the answer could not be written: {e}")))?;
    charge.settle(bytes.len());
    let mut response = ([(CONTENT_TYPE, "application/json")], bytes).into_response();
    response.extensions_mut().insert(charge);
    Ok(response)
}
