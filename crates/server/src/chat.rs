//! `POST /v1/chat/completions`

use crate::answer::{self, Answer, Prepared, Writer};
use crate::body::Body;
use crate::conversation::{Message, Messages, TemplateKwargs};
use crate::encode::encode;
use crate::envelope::Streaming;
use crate::error::ApiError;
use crate::logprobs::Names;
use crate::object::object;
use crate::params::{Params, Plan, ResponseFormat, limit};
use crate::state::AppState;
use axum::extract::State;
use axum::response::Response;
use mlx_serving_engine::{Event, FinishReason, Request, Sampling};
use mlx_serving_runtime::{Conversation, Input};
use mlx_serving_text::Tokenizer;
use serde_json::{Value, json};
use std::sync::Arc;

object! {
    /// The body.
    pub(crate) struct ChatRequest {
        messages: Messages = required,
        max_completion_tokens: i64,
        logprobs: bool,
        top_logprobs: usize,
        /// Anything but text is refused when the body is parsed.
        _format as "response_format": ResponseFormat,
        /// Variables for the model's chat template.
        chat_template_kwargs: TemplateKwargs,
    }
    with params: Params
}

impl ChatRequest {
    /// The client's name for the limit on the answer.
    fn limit_name(&self) -> &'static str {
        if self.max_completion_tokens.is_some() { "max_completion_tokens" } else { "max_tokens" }
    }

    /// Everything but the conversation, checked.
    fn plan(&self, defaults: &Sampling) -> Result<Plan, ApiError> {
        let max_tokens = match (self.params.max_tokens, self.max_completion_tokens) {
            (Some(a), Some(b)) if a != b => {
                let message = "max_tokens and max_completion_tokens differ; send the latter alone";
                return Err(ApiError::invalid("max_completion_tokens", message));
            }
            (a, b) => b.or(a).map(|value| limit(self.limit_name(), value)).transpose()?,
        };
        let logprobs = match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (true, top) => Some(top.unwrap_or(0)),
            (false, None | Some(0)) => None,
            (false, Some(_)) => {
                return Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs to be true"));
            }
        };
        self.messages.check()?;
        let plan = self.params.plan(defaults)?;
        Ok(plan.with(|request| {
            request.max_tokens = max_tokens;
            request.logprobs = logprobs;
            request.begins_text = true;
        }))
    }

    /// Checks all that can be without a model; for fuzzing.
    pub(crate) fn check(self) {
        // Refusals are as good as requests here: neither may panic.
        let _ = self.plan(&Sampling::default()).map(|plan| plan.requests(vec![1]));
        self.messages.0.into_iter().for_each(|message| drop(message.into_runtime()));
    }

    /// The conversation.
    fn input(self) -> Input {
        // A template writes begin tokens itself.
        let special = self.params.add_special_tokens.unwrap_or(false);
        let messages = self.messages.0.into_iter().map(Message::into_runtime).collect();
        let variables = self.chat_template_kwargs.map(|kwargs| kwargs.0);
        Input::Conversation { conversation: Conversation { messages, variables }, special }
    }
}

/// Answers a conversation.
pub(crate) async fn chat_completions(
    State(state): State<Arc<AppState>>,
    Body(request, permit): Body<ChatRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.params.model.as_deref())?;
    request.params.log(&model.card().id, "chat completion");
    let streaming = Streaming::of(&request.params)?;
    let as_ids = request.params.return_tokens_as_token_ids.unwrap_or(false);
    let limit_name = request.limit_name();
    // The engine has other names for them than this route.
    let named = |e: ApiError| e.renamed("prompt", "messages").renamed("max_tokens", limit_name);
    let plan = request.plan(&model.card().defaults)?;
    plan.check_count(1, model.card().info.max_live)?;
    let n = plan.n;
    let requests: Vec<Request> =
        answer::off_thread(permit, &model, move |m, work| Ok(plan.requests(encode(m, request.input(), work)?)))
            .await
            .map_err(named)?;
    let writer = ChatWriter { tokenizer: model.tokenizer().clone(), as_ids, begun: vec![false; n] };
    answer::respond(&state, &*model, Prepared { requests, n, streaming, writer }).await.map_err(named)
}

/// Writes chat completions.
struct ChatWriter {
    tokenizer: Tokenizer,
    as_ids: bool,
    /// By choice: its role is out.
    begun: Vec<bool>,
}

impl ChatWriter {
    fn names(&self) -> Names<'_> {
        Names { tokenizer: &self.tokenizer, as_ids: self.as_ids }
    }

    fn choice(&self, index: usize, answer: Answer) -> Value {
        let content: Vec<Value> = answer.tokens.iter().filter_map(|token| self.names().chat(token)).collect();
        json!({
            "index": index,
            "message": { "role": "assistant", "content": answer.text, "refusal": null },
            "logprobs": if content.is_empty() { Value::Null } else { json!({ "content": content, "refusal": null }) },
            "finish_reason": answer.finish.map(FinishReason::as_str),
        })
    }
}

impl Writer for ChatWriter {
    const ID: &'static str = "chatcmpl";
    const OBJECT: &'static str = "chat.completion";
    const CHUNK: &'static str = "chat.completion.chunk";

    fn whole(self, answers: Vec<Answer>) -> Vec<Value> {
        answers.into_iter().enumerate().map(|(index, answer)| self.choice(index, answer)).collect()
    }

    /// The role comes with the first token, for clients take a stream's first chunk for its first token; the reason without text, for
    /// clients stop reading there.
    fn chunks(&mut self, index: usize, event: Event) -> Vec<Value> {
        let mut choices = Vec::new();
        let mut push = |delta: Value, logprobs: Option<Value>, finish: Option<&str>| {
            let logprobs = logprobs.map(|entry| json!({ "content": [entry], "refusal": null }));
            choices.push(json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish }));
        };
        if matches!(event, Event::Token(_) | Event::Finished(_)) && !std::mem::replace(&mut self.begun[index], true) {
            push(json!({ "role": "assistant", "content": "" }), None, None);
        }
        match event {
            Event::Token(token) => {
                let logprobs = self.names().chat(&token);
                if !token.text.is_empty() || logprobs.is_some() {
                    push(json!({ "content": token.text }), logprobs, None);
                }
            }
            Event::Finished(finish) => {
                if !finish.text.is_empty() {
                    push(json!({ "content": finish.text }), None, None);
                }
                push(json!({}), None, Some(finish.reason.as_str()));
            }
            Event::Prompt(_) | Event::Failed(_) => {}
        }
        choices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logprobs::tests::tokenizer;
    use mlx_serving_engine::{Finish, TokenEvent, Usage};

    fn deltas(events: Vec<Event>) -> Vec<(Value, Value)> {
        let mut writer = ChatWriter { tokenizer: tokenizer(), as_ids: false, begun: vec![false] };
        let choices = events.into_iter().flat_map(|event| writer.chunks(0, event));
        choices.map(|choice| (choice["delta"].clone(), choice["finish_reason"].clone())).collect()
    }

    fn token(text: &str) -> Event {
        Event::Token(TokenEvent { id: 70, text: text.into(), offset: 0, logprobs: None })
    }

    fn end(text: &str) -> Event {
        Event::Finished(Finish { reason: FinishReason::Stop, text: text.into(), usage: Usage::default() })
    }

    #[test]
    fn the_role_comes_with_the_first_token_and_the_reason_without_text() {
        let role = json!({ "role": "assistant", "content": "" });
        let (text, rest) = (json!({ "content": "hi" }), json!({ "content": "bye" }));
        let (none, stop, nothing) = (Value::Null, json!("stop"), json!({}));
        assert_eq!(
            deltas(vec![token("hi"), token(""), end("bye")]),
            [(role.clone(), none.clone()), (text, none.clone()), (rest, none.clone()), (nothing.clone(), stop.clone())]
        );
        assert_eq!(deltas(vec![token(""), end("")]), [(role, none), (nothing, stop)]);
    }
}
