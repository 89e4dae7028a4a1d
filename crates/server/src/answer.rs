//! Runs the requests behind one HTTP request, whole or as a stream.

use crate::admit::{Leave, Work};
use crate::error::ApiError;
use crate::state::{AppState, ServedModel};
use crate::unread::Charge;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, BoxStream, StreamExt};
use mlx_serving_engine::{Event, FinishReason, Request, Stream, TokenEvent, Usage};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// One choice's answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub text: String,
    pub tokens: Vec<TokenEvent>,
    pub finish: Option<FinishReason>,
    pub usage: Usage,
}

/// Submits all choices, or none.
pub(crate) fn submit(model: &ServedModel, requests: Vec<Request>) -> Result<Vec<Stream>, ApiError> {
    model.engine.submit_all(requests).map_err(ApiError::from)
}

/// Waits for all choices, whose bytes are counted. Dropping the future cancels them.
pub(crate) async fn collect(streams: Vec<Stream>, charge: &Charge) -> Result<Vec<Answer>, ApiError> {
    let answers = streams.into_iter().map(|mut stream| async move {
        let mut answer = Answer::default();
        while let Some(event) = stream.next().await {
            match event {
                Event::Prompt(_) => {}
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
pub(crate) fn merge(streams: Vec<Stream>) -> BoxStream<'static, (usize, Event)> {
    let indexed = streams.into_iter().enumerate().map(|(index, stream)| {
        stream::unfold(stream, move |mut stream| async move {
            let event = stream.next().await?;
            Some(((index, event), stream))
        })
        .boxed()
    });
    stream::select_all(indexed).boxed()
}

/// OpenAI's usage object, summed over the choices, each with its index. The `n` choices of one prompt share its tokens.
pub(crate) fn usage(usages: &[(usize, Usage)], n: usize) -> Value {
    let completion: usize = usages.iter().map(|(_, u)| u.completion_tokens).sum();
    let firsts = || usages.iter().filter(|(index, _)| index.is_multiple_of(n)).map(|(_, u)| u);
    let prompt: usize = firsts().map(|u| u.prompt_tokens).sum();
    let cached: usize = firsts().map(|u| u.cached_tokens).sum();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": cached },
    })
}

/// The usages of whole answers.
pub(crate) fn usages(answers: &[Answer]) -> Vec<(usize, Usage)> {
    answers.iter().map(|a| a.usage).enumerate().collect()
}

/// A token as logprobs name it. Its bytes may be half a character; then U+FFFD stands in the text.
fn named(model: &ServedModel, id: u32, logprob: f32) -> Value {
    let bytes = model.tokenizer.token_bytes(id).unwrap_or_default();
    json!({ "token": String::from_utf8_lossy(&bytes), "logprob": logprob, "bytes": bytes })
}

/// The entry of chat completions' `logprobs.content` for one token.
pub(crate) fn chat_logprobs(model: &ServedModel, token: &TokenEvent) -> Value {
    let Some(logprobs) = &token.logprobs else { return Value::Null };
    let mut entry = named(model, token.id, logprobs.chosen);
    entry["top_logprobs"] = logprobs.top.iter().map(|&(id, p)| named(model, id, p)).collect();
    entry
}

/// Text completions' `logprobs` object for a run of tokens whose text begins at character `offset`.
pub(crate) fn completion_logprobs(model: &ServedModel, tokens: &[TokenEvent], mut offset: usize) -> Value {
    let name = |id: u32| model.tokenizer.decode(&[id], false).unwrap_or_default();
    let (mut names, mut chosen, mut top, mut offsets) = (vec![], vec![], vec![], vec![]);
    for token in tokens {
        let Some(logprobs) = &token.logprobs else { continue };
        names.push(name(token.id));
        chosen.push(logprobs.chosen);
        top.push(logprobs.top.iter().map(|&(id, p)| (name(id), json!(p))).collect::<serde_json::Map<_, _>>());
        offsets.push(offset);
        offset += token.text.chars().count();
    }
    json!({ "tokens": names, "token_logprobs": chosen, "top_logprobs": top, "text_offset": offsets })
}

/// Runs `f`, which may take long on long texts, off the runtime's threads, if the model takes requests at all.
pub(crate) async fn off_thread<T: Send + 'static>(
    leave: Leave,
    model: &Arc<ServedModel>,
    f: impl FnOnce(&ServedModel, &Work) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    model.admits()?;
    let model = model.clone();
    leave.work(move |work| f(&model, work)).await
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
