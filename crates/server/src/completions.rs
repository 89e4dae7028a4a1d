//! `POST /v1/completions`

use crate::answer::{self, Answer};
use crate::body::Body;
use crate::envelope::{self, Envelope};
use crate::error::ApiError;
use crate::params::{OneOrMany, SamplingParams, StreamOptions};
use crate::state::{AppState, ServedModel};
use axum::extract::State;
use axum::response::Response;
use mlx_serving_engine::{Event, FinishReason, Request};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The body. Every field is honoured; any other is refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompletionRequest {
    pub model: Option<String>,
    pub prompt: Prompt,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    pub max_tokens: Option<i64>,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<i64>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub seed: Option<i64>,
    pub logit_bias: Option<BTreeMap<String, f32>>,
    pub stop: Option<OneOrMany>,
    pub ignore_eos: Option<bool>,
    pub n: Option<i64>,
    pub logprobs: Option<usize>,
    /// The prompt comes before the answer.
    pub echo: Option<bool>,
    /// Goes to the log.
    pub user: Option<String>,
}

/// A text, its token ids, or several texts, answered in order.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a string, a list of strings, a list of token ids, or a list of such lists")]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

/// Prompts of one request at most.
const MAX_PROMPTS: usize = 64;
/// OpenAI's limit of this route.
const MAX_LOGPROBS: usize = 5;
/// OpenAI's default of this route.
const DEFAULT_MAX_TOKENS: i64 = 16;

impl CompletionRequest {
    fn sampling(&self) -> Result<SamplingParams, ApiError> {
        if self.logprobs.is_some_and(|n| n > MAX_LOGPROBS) {
            return Err(ApiError::invalid("logprobs", format!("logprobs is at most {MAX_LOGPROBS}")));
        }
        Ok(SamplingParams {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
            logit_bias: self.logit_bias.clone(),
            max_tokens: Some(self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)),
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            n: self.n,
            logprobs: self.logprobs,
        })
    }

    /// What can be checked without a model; for fuzzing.
    pub(crate) fn check(&self) {
        if let Ok(params) = self.sampling() {
            // Refusals are as good as requests here: neither may panic.
            let _ = params.requests(vec![1], &mlx_serving_engine::Sampling::default());
        }
    }

    /// The engine's requests, prompt by prompt, each with the text to echo.
    fn requests(&self, model: &ServedModel) -> Result<Vec<(Request, String)>, ApiError> {
        let sampling = self.sampling()?;
        let encode =
            |text: &String| model.tokenizer.encode(text, true).map_err(|e| ApiError::invalid("prompt", e.to_string()));
        let prompts: Vec<Vec<u32>> = match &self.prompt {
            Prompt::Text(text) => vec![encode(text)?],
            Prompt::Texts(texts) => texts.iter().map(encode).collect::<Result<_, _>>()?,
            Prompt::Tokens(ids) => vec![ids.clone()],
            Prompt::TokenLists(lists) => lists.clone(),
        };
        if prompts.is_empty() || prompts.len() > MAX_PROMPTS {
            return Err(ApiError::invalid(
                "prompt",
                format!("prompt has {} entries; 1 to {MAX_PROMPTS} do", prompts.len()),
            ));
        }
        let mut requests = Vec::new();
        for prompt in prompts {
            let echo = match self.echo {
                Some(true) => {
                    let known = prompt.iter().all(|&id| (id as usize) < model.engine.info().vocab);
                    if !known {
                        return Err(ApiError::invalid("prompt", "a token id is outside the vocabulary"));
                    }
                    model.tokenizer.decode(&prompt, true).map_err(|e| ApiError::internal(e.to_string()))?
                }
                _ => String::new(),
            };
            let choices = sampling.clone().requests(prompt, &model.defaults)?;
            requests.extend(choices.into_iter().map(|r| (r, echo.clone())));
        }
        Ok(requests)
    }
}

/// Completes texts.
pub(crate) async fn completions(
    State(state): State<Arc<AppState>>,
    Body(request, leave): Body<CompletionRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.model.as_deref())?;
    if let Some(user) = &request.user {
        tracing::debug!(user, model = model.id, "completion");
    }
    let streaming = envelope::streaming(request.stream, request.stream_options.as_ref(), request.n)?;
    let n = request.n.map_or(1, |n| n.max(1) as usize);
    let requests = answer::off_thread(leave, &model, move |m, _| request.requests(m)).await?;
    let (requests, echoes): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
    if streaming.is_none() {
        state.unread.fits(&requests, &model)?;
    }
    let streams = answer::submit(&model, requests)?;
    let envelope = Envelope::new("cmpl", &model);
    if let Some(options) = streaming {
        // Where each choice's next token begins, in characters.
        let mut offsets: Vec<usize> = echoes.iter().map(|echo| echo.chars().count()).collect();
        let writer = move |_: &Envelope, index: usize, event: Option<&Event>| {
            let choice = chunk(&model, &echoes[index], index, event, offsets[index]);
            if let Some(Event::Token(token)) = event {
                offsets[index] += token.text.chars().count();
            }
            choice
        };
        return Ok(envelope.stream("text_completion", streams, options, writer));
    }
    let charge = state.unread.charge();
    let answers = answer::collect(streams, &charge).await?;
    let build = move || {
        let choice = |(i, (a, echo)): (usize, (&Answer, &String))| choice(&model, i, a, echo);
        let choices = answers.iter().zip(&echoes).enumerate().map(choice).collect();
        let usage = answer::usage(&answer::usages(&answers), n);
        envelope.object("text_completion", choices, Some(usage))
    };
    answer::whole(&state, charge, build).await
}

fn choice(model: &ServedModel, index: usize, answer: &Answer, echo: &str) -> Value {
    let asked = answer.tokens.iter().any(|t| t.logprobs.is_some());
    let logprobs = asked.then(|| answer::completion_logprobs(model, &answer.tokens, echo.chars().count()));
    json!({
        "index": index,
        "text": format!("{echo}{}", answer.text),
        "logprobs": logprobs,
        "finish_reason": answer.finish.map(FinishReason::as_str),
    })
}

/// The choice of one streamed chunk: the echo before anything else, then text, then the reason.
fn chunk(model: &ServedModel, echo: &str, index: usize, event: Option<&Event>, offset: usize) -> Option<Value> {
    let (text, finish, logprobs) = match event {
        None if echo.is_empty() => return None,
        None => (echo, None, None),
        Some(Event::Token(token)) => {
            let logprobs = token
                .logprobs
                .is_some()
                .then(|| answer::completion_logprobs(model, std::slice::from_ref(token), offset));
            if token.text.is_empty() && logprobs.is_none() {
                return None;
            }
            (token.text.as_str(), None, logprobs)
        }
        Some(Event::Finished(finish)) => (finish.text.as_str(), Some(finish.reason.as_str()), None),
        Some(Event::Prompt(_) | Event::Failed(_)) => return None,
    };
    Some(json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish }))
}
