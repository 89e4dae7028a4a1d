//! `POST /v1/chat/completions/render` and `/v1/completions/render`: the prompts that a request would have, and how it would be answered.

use super::chat::{Asked, ChatRequest};
use super::completions::CompletionRequest;
use crate::account::Account;
use crate::admission::WorkPermit;
use crate::error::ApiError;
use crate::generation::{Ask, off_thread};
use crate::request::Body;
use crate::request::sampling::shortest;
use crate::state::AppState;
use axum::extract::State;
use axum::response::Response;
use mlx_serving_engine::{Request, Sampling};
use mlx_serving_runtime::Generate;
use mlx_serving_text::Tokenizer;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Bytes of JSON for a token of a rendered prompt: its id, and its text twice, in case it has to be escaped.
const TOKEN: usize = 24;

/// The prompt of a chat.
pub(super) async fn chat(
    State(state): State<Arc<AppState>>,
    Body(request, permit, account): Body<ChatRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.shared.model.as_deref())?;
    let Asked { ask, spelled } = request.ask(&model.card().defaults)?;
    let rendered = render(&state, &model, (permit, account), ask, |mut prompts| prompts.pop().unwrap_or_default());
    rendered.await.map_err(|error| spelled.error(error))
}

/// The prompts of a text completion, in order.
pub(super) async fn completion(
    State(state): State<Arc<AppState>>,
    Body(request, permit, account): Body<CompletionRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.shared.model.as_deref())?;
    let (ask, structure) = request.ask(&model.card().defaults)?;
    let rendered = render(&state, &model, (permit, account), ask, Value::Array);
    rendered.await.map_err(|error| error.renamed("structure", structure))
}

async fn render(
    state: &AppState,
    model: &Arc<dyn Generate>,
    (permit, account): (WorkPermit, Arc<Account>),
    mut ask: Ask,
    whole: impl FnOnce(Vec<Value>) -> Value + Send + 'static,
) -> Result<Response, ApiError> {
    account.entries().model = Some(model.card().id.clone());
    let n = ask.choices;
    let requests = off_thread(permit, model, move |model, work| {
        let prompts = ask.prepare(model, work)?;
        if prompts.iter().any(|prompt| prompt.ids.is_empty()) {
            let name = ask.names.of("prompt");
            return Err(ApiError::invalid(name, "the prompt has no tokens; send at least one"));
        }
        let card = model.card();
        ask.sampling.validate(card.info.vocab).map_err(|error| ask.names.error(error))?;
        // Choices differ in nothing but their seeds.
        let first = |ready| ask.requests(ready, card.info.max_context).into_iter().next();
        Ok(prompts.into_iter().filter_map(first).collect::<Vec<Request>>())
    });
    let requests = requests.await?;
    let charge = state.unread.charge("prompt");
    charge.settle(requests.iter().map(|request| TOKEN * request.prompt.len()).sum());
    let (id, tokenizer) = (model.card().id.clone(), model.tokenizer().clone());
    let build = move || whole(requests.iter().map(|request| rendered(&id, &tokenizer, request, n)).collect());
    state.admission.whole(charge, build).await
}

/// A prompt: its ids, its text with special tokens, and the parameters that are in force.
fn rendered(model: &str, tokenizer: &Tokenizer, request: &Request, n: usize) -> Value {
    json!({
        "model": model,
        "token_ids": request.prompt,
        "prompt_text": tokenizer.decode(&request.prompt, false).unwrap_or_default(),
        "sampling_params": parameters(request, n),
    })
}

/// Parameters under the names that requests have for them.
fn parameters(request: &Request, n: usize) -> Value {
    let Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        seed,
        logit_bias,
    } = &request.sampling;
    let biases: Map<String, Value> =
        logit_bias.iter().map(|(id, bias)| (id.to_string(), json!(shortest(*bias)))).collect();
    json!({
        "n": n, "temperature": shortest(*temperature), "top_p": shortest(*top_p), "top_k": top_k, "min_p": shortest(*min_p),
        "repetition_penalty": shortest(*repetition_penalty), "presence_penalty": shortest(*presence_penalty),
        "frequency_penalty": shortest(*frequency_penalty), "seed": seed.map(|seed| seed as i64), "logit_bias": biases,
        "max_tokens": request.max_tokens, "stop": request.stop, "ignore_eos": request.ignore_eos,
        "logprobs": request.logprobs, "prompt_logprobs": request.prompt_logprobs,
        "thinking_token_budget": request.reasoning_budget,
    })
}
