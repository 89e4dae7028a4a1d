//! `POST /v1/chat/completions`

use super::events::{Choices, Completion};
use super::fields::{ResponseFormat, SharedFields, TokenLimit};
use super::logprobs::TokenNames;
use super::messages::{Message, Messages, TemplateKwargs};
use crate::error::ApiError;
use crate::generation::{self, Answer, Ask, Delta, Names};
use crate::request::Body;
use crate::request::object::object;
use crate::request::sampling::SamplingFields;
use crate::request::whole::Whole;
use crate::state::AppState;
use axum::extract::State;
use axum::response::Response;
use mlx_serving_engine::{FinishReason, MAX_ALTERNATIVES, Sampling};
use mlx_serving_runtime::{Conversation, Input};
use mlx_serving_text::Tokenizer;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::{Value, json};
use std::sync::Arc;

object! {
    /// The body.
    pub(crate) struct ChatRequest {
        messages: Messages = required,
        max_completion_tokens: TokenLimit,
        logprobs: bool,
        top_logprobs: Alternatives,
        /// Anything but text is refused when the body is parsed.
        _format as "response_format": ResponseFormat,
        /// Variables for the model's chat template.
        chat_template_kwargs: TemplateKwargs,
    }
    with shared: SharedFields, sampling: SamplingFields
}

/// `top_logprobs`; -1, mlx-lm's number for none, is one of them.
#[derive(Debug)]
pub(crate) struct Alternatives(usize);

impl<'de> Deserialize<'de> for Alternatives {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Whole(top) = Whole::deserialize(deserializer)?;
        let none = if top == -1 { Some(0) } else { usize::try_from(top).ok() };
        none.map(Self).ok_or_else(|| D::Error::custom(format!("is {top}; it cannot be negative")))
    }
}

const NAMES: Names = Names(&[("prompt", "messages"), ("variables", "chat_template_kwargs")]);
/// The same where the client uses the newer name for the limit.
const NEWER_NAMES: Names =
    Names(&[("prompt", "messages"), ("variables", "chat_template_kwargs"), ("max_tokens", "max_completion_tokens")]);

impl ChatRequest {
    /// The answers that are asked for; `defaults` are the model's sampling parameters.
    fn ask(self, defaults: &Sampling) -> Result<Ask, ApiError> {
        let (max_tokens, names) = match (self.shared.max_tokens, self.max_completion_tokens) {
            (Some(a), Some(b)) if a != b => {
                let message = "max_tokens and max_completion_tokens differ; send the latter alone";
                return Err(ApiError::invalid("max_completion_tokens", message));
            }
            (_, Some(limit)) => (Some(limit), NEWER_NAMES),
            (limit, None) => (limit, NAMES),
        };
        if max_tokens == Some(TokenLimit(0)) {
            let name = names.of("max_tokens");
            return Err(ApiError::invalid(name, format!("{name} is 0; it must be at least 1")));
        }
        let logprobs = match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (true, Some(Alternatives(top))) if top > MAX_ALTERNATIVES => {
                let message = format!("top_logprobs is {top}; it is at most {MAX_ALTERNATIVES}");
                return Err(ApiError::invalid("top_logprobs", message));
            }
            (true, top) => Some(top.map_or(0, |top| top.0)),
            (false, None | Some(Alternatives(0))) => None,
            (false, Some(_)) => {
                return Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs to be true"));
            }
        };
        self.messages.check()?;
        let messages = self.messages.0.into_iter().map(Message::into_runtime).collect();
        let variables = self.chat_template_kwargs.map(|kwargs| kwargs.0);
        // A template writes begin tokens itself.
        let special = self.shared.add_special_tokens.unwrap_or(false);
        Ok(Ask {
            inputs: vec![Input::Conversation { conversation: Conversation { messages, variables }, special }],
            choices: self.shared.choices(),
            sampling: self.sampling.over(defaults)?,
            max_tokens: max_tokens.map(|limit| limit.0),
            usual_tokens: None,
            logprobs,
            prompt_logprobs: None,
            begins_text: true,
            stream: self.shared.streams(),
            ignore_eos: self.shared.ignore_eos.unwrap_or(false),
            stop: self.shared.stop.unwrap_or_default().0,
            names,
        })
    }

    /// Checks all that can be without a model; for fuzzing.
    pub(crate) fn check(self) {
        // Refusals are as good as requests here: neither may panic.
        let _ = self.ask(&Sampling::default()).map(|ask| ask.requests(vec![1], 2));
    }
}

/// Answers a conversation.
pub(crate) async fn chat_completions(
    State(state): State<Arc<AppState>>,
    Body(request, permit, account): Body<ChatRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.shared.model.as_deref())?;
    request.shared.log(&model.card().id, "chat completion");
    let usages = request.shared.usages()?;
    let as_ids = request.shared.return_tokens_as_token_ids.unwrap_or(false);
    let ask = request.ask(&model.card().defaults)?;
    let begun = vec![false; ask.choices];
    generation::answer(&state, &model, (permit, account), ask, move |model, _| {
        let choices = ChatChoices { tokenizer: model.tokenizer().clone(), as_ids, begun };
        Ok(Completion::new(&model.card().id, usages, choices))
    })
    .await
}

/// Choices of chat completions.
struct ChatChoices {
    tokenizer: Tokenizer,
    as_ids: bool,
    /// True by choice of a stream once its role is out.
    begun: Vec<bool>,
}

impl ChatChoices {
    fn names(&self) -> TokenNames<'_> {
        TokenNames { tokenizer: &self.tokenizer, as_ids: self.as_ids }
    }
}

impl Choices for ChatChoices {
    const ID: &'static str = "chatcmpl";
    const OBJECT: &'static str = "chat.completion";
    const CHUNK: &'static str = "chat.completion.chunk";

    fn choice(&self, index: usize, answer: Answer) -> Value {
        let content: Vec<Value> = answer.tokens.iter().filter_map(|token| self.names().chat(token)).collect();
        json!({
            "index": index,
            "message": { "role": "assistant", "content": answer.text, "refusal": null },
            "logprobs": if content.is_empty() { Value::Null } else { json!({ "content": content, "refusal": null }) },
            "finish_reason": answer.finish.map(FinishReason::as_str),
        })
    }

    /// The role comes with the first token, for clients take a stream's first chunk for its first token; the reason without text, for
    /// clients stop reading there.
    fn chunks(&mut self, index: usize, delta: Delta) -> Vec<Value> {
        let mut choices = Vec::new();
        let mut push = |delta: Value, logprobs: Option<Value>, finish: Option<&str>| {
            let logprobs = logprobs.map(|entry| json!({ "content": [entry], "refusal": null }));
            choices.push(json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish }));
        };
        if !matches!(delta, Delta::Prompt(_)) && !std::mem::replace(&mut self.begun[index], true) {
            push(json!({ "role": "assistant", "content": "" }), None, None);
        }
        match delta {
            Delta::Text { text, token } => {
                let logprobs = token.and_then(|token| self.names().chat(&token));
                if !text.is_empty() || logprobs.is_some() {
                    push(json!({ "content": text }), logprobs, None);
                }
            }
            Delta::Done { reason } => push(json!({}), None, Some(reason.as_str())),
            Delta::Prompt(_) => {}
        }
        choices
    }
}

#[cfg(test)]
mod tests {
    use super::super::logprobs::tests::tokenizer;
    use super::*;
    use crate::generation::Token;

    fn deltas(deltas: Vec<Delta>) -> Vec<(Value, Value)> {
        let mut choices = ChatChoices { tokenizer: tokenizer(), as_ids: false, begun: vec![false] };
        let choices = deltas.into_iter().flat_map(|delta| choices.chunks(0, delta));
        choices.map(|choice| (choice["delta"].clone(), choice["finish_reason"].clone())).collect()
    }

    fn token(text: &str) -> Delta {
        Delta::Text { text: text.into(), token: Some(Token { id: 70, offset: 0, logprobs: None }) }
    }

    fn rest(text: &str) -> Delta {
        Delta::Text { text: text.into(), token: None }
    }

    #[test]
    fn the_role_comes_with_the_first_token_and_the_reason_without_text() {
        let end = || Delta::Done { reason: FinishReason::Stop };
        let role = json!({ "role": "assistant", "content": "" });
        let (hi, bye) = (json!({ "content": "hi" }), json!({ "content": "bye" }));
        let (none, stop, nothing) = (Value::Null, json!("stop"), json!({}));
        assert_eq!(
            deltas(vec![token("hi"), token(""), rest("bye"), end()]),
            [(role.clone(), none.clone()), (hi, none.clone()), (bye, none.clone()), (nothing.clone(), stop.clone())]
        );
        assert_eq!(deltas(vec![token(""), end()]), [(role, none), (nothing, stop)]);
    }
}
