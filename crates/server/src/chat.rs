//! `POST /v1/chat/completions`

use crate::answer::{self, Answer};
use crate::body::Body;
use crate::envelope::{self, Envelope};
use crate::error::ApiError;
use crate::params::{OneOrMany, SamplingParams, StreamOptions};
use crate::state::{AppState, ServedModel};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use mlx_serving_engine::{Event, FinishReason, Request};
use mlx_serving_text::{ChatInput, TemplateError};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The body. Every field is honoured; any other is refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatRequest {
    pub model: Option<String>,
    pub messages: Vec<Message>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    pub max_tokens: Option<i64>,
    pub max_completion_tokens: Option<i64>,
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
    pub logprobs: Option<bool>,
    pub top_logprobs: Option<usize>,
    /// Anything but text is refused when the body is parsed.
    #[serde(rename = "response_format")]
    pub _response_format: Option<ResponseFormat>,
    /// Variables for the model's chat template.
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// Goes to the log.
    pub user: Option<String>,
}

/// Plain text is the only format so far.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ResponseFormat {
    Text,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message {
    pub role: Role,
    pub content: Option<Content>,
    pub name: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    System,
    Developer,
    User,
    Assistant,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a string or a list of parts {\"type\": \"text\", \"text\": …}; other types are not taken"
)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Part {
    Text { text: String },
}

impl Message {
    /// What templates know: role and text. OpenAI's newer `developer` is their `system`.
    fn for_template(&self) -> Value {
        let role = match self.role {
            Role::System | Role::Developer => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        let content = match &self.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => parts.iter().map(|Part::Text { text }| text.as_str()).collect(),
        };
        let mut message = json!({ "role": role, "content": content });
        if let Some(name) = &self.name {
            message["name"] = json!(name);
        }
        message
    }
}

impl ChatRequest {
    fn sampling(&self) -> Result<SamplingParams, ApiError> {
        let max_tokens = match (self.max_tokens, self.max_completion_tokens) {
            (Some(a), Some(b)) if a != b => {
                let message = "max_tokens and max_completion_tokens differ; send the latter alone";
                return Err(ApiError::invalid("max_completion_tokens", message));
            }
            (a, b) => b.or(a),
        };
        let logprobs = match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (true, top) => Some(top.unwrap_or(0)),
            (false, None) => None,
            (false, Some(_)) => {
                return Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs to be true"));
            }
        };
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
            max_tokens,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            n: self.n,
            logprobs,
        })
    }

    /// What can be checked without a model; for fuzzing.
    pub(crate) fn check(&self) {
        if let Ok(params) = self.sampling() {
            // Refusals are as good as requests here: neither may panic.
            let _ = params.requests(vec![1], &mlx_serving_engine::Sampling::default());
        }
        let _ = self.check_messages();
        self.messages.iter().for_each(|m| drop(m.for_template()));
    }

    /// What the engine knows by other names than this route.
    fn named(&self, error: ApiError) -> ApiError {
        let limit = if self.max_completion_tokens.is_some() { "max_completion_tokens" } else { "max_tokens" };
        error.renamed("prompt", "messages").renamed("max_tokens", limit)
    }

    fn check_messages(&self) -> Result<(), ApiError> {
        if self.messages.is_empty() {
            return Err(ApiError::invalid("messages", "messages is empty; send at least one"));
        }
        // Only an assistant may have said nothing.
        match self.messages.iter().position(|m| m.content.is_none() && !matches!(m.role, Role::Assistant)) {
            Some(i) => {
                Err(ApiError::invalid(format!("messages[{i}].content"), format!("messages[{i}] has no content")))
            }
            None => Ok(()),
        }
    }

    /// Renders and tokenises.
    fn requests(&self, model: &ServedModel) -> Result<Vec<Request>, ApiError> {
        self.check_messages()?;
        let Some(template) = &model.template else {
            let message = format!("{} has no chat template; use /v1/completions", model.id);
            return Err(ApiError::invalid("messages", message));
        };
        let messages: Vec<Value> = self.messages.iter().map(Message::for_template).collect();
        let mut input = ChatInput::new(&messages);
        if let Some(kwargs) = &self.chat_template_kwargs {
            input.kwargs = Some(kwargs);
        }
        let prompt = template.render(&input).map_err(|e| match e {
            TemplateError::Reserved { .. } => ApiError::invalid("chat_template_kwargs", e.to_string()),
            _ if e.is_client_error() => ApiError::invalid("messages", e.to_string()),
            _ => ApiError::internal(e.to_string()),
        })?;
        let ids = model.tokenizer.encode(&prompt, false).map_err(|e| ApiError::invalid("messages", e.to_string()))?;
        let requests = self.sampling()?.requests(ids, &model.defaults)?;
        Ok(requests.into_iter().map(|request| Request { begins_text: true, ..request }).collect())
    }
}

/// Answers a conversation.
pub(crate) async fn chat_completions(
    State(state): State<Arc<AppState>>,
    Body(request): Body<ChatRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.model.as_deref())?;
    if let Some(user) = &request.user {
        tracing::debug!(user, model = model.id, "chat completion");
    }
    let streaming = envelope::streaming(request.stream, request.stream_options.as_ref(), request.n)?;
    let n = request.n.map_or(1, |n| n.max(1) as usize);
    let request = Arc::new(request);
    let asked = request.clone();
    let requests = answer::off_thread(&model, move |m| asked.requests(m)).await.map_err(|e| request.named(e))?;
    let streams = answer::submit(&model, requests).map_err(|e| request.named(e))?;
    let envelope = Envelope::new("chatcmpl", &model);
    if let Some(options) = streaming {
        let writer = move |envelope: &Envelope, index, event: Option<&Event>| chunk(envelope, &model, index, event);
        return Ok(envelope.stream("chat.completion.chunk", streams, options, writer));
    }
    let answers = answer::collect(streams).await?;
    let choices: Vec<Value> = answers.iter().enumerate().map(|(i, a)| choice(&model, i, a)).collect();
    let usage = answer::usage(&answer::usages(&answers), n);
    Ok(Json(envelope.object("chat.completion", choices, Some(usage))).into_response())
}

fn choice(model: &ServedModel, index: usize, answer: &Answer) -> Value {
    let content: Vec<Value> =
        answer.tokens.iter().map(|t| answer::chat_logprobs(model, t)).filter(|v| !v.is_null()).collect();
    json!({
        "index": index,
        "message": { "role": "assistant", "content": answer.text, "refusal": null },
        "logprobs": if content.is_empty() { Value::Null } else { json!({ "content": content, "refusal": null }) },
        "finish_reason": answer.finish.map(FinishReason::as_str),
    })
}

/// The choice of one streamed chunk: the role before anything else, then text, then the reason.
fn chunk(_: &Envelope, model: &ServedModel, index: usize, event: Option<&Event>) -> Option<Value> {
    let (delta, finish, logprobs) = match event {
        None => (json!({ "role": "assistant", "content": "" }), None, Value::Null),
        Some(Event::Token(token)) => {
            let logprobs = answer::chat_logprobs(model, token);
            if token.text.is_empty() && logprobs.is_null() {
                return None;
            }
            (json!({ "content": token.text }), None, logprobs)
        }
        Some(Event::Finished(finish)) => {
            let delta = if finish.text.is_empty() { json!({}) } else { json!({ "content": finish.text }) };
            (delta, Some(finish.reason.as_str()), Value::Null)
        }
        Some(Event::Prompt(_) | Event::Failed(_)) => return None,
    };
    let logprobs = if logprobs.is_null() { Value::Null } else { json!({ "content": [logprobs], "refusal": null }) };
    Some(json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish }))
}
