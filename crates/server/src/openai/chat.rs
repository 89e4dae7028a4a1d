//! `POST /v1/chat/completions`: from its body to what it asks.

use super::chat_choices::ChatChoices;
use super::events::Completion;
use super::fields::{SharedFields, TokenLimit};
use super::messages::Messages;
use super::reasoning::ReasoningFields;
use super::structure::StructureFields;
use super::tools::{Choice, Definition, Definitions, PATHS};
use crate::error::ApiError;
use crate::generation::{self, Ask, Names};
use crate::request::Body;
use crate::request::object::object;
use crate::request::sampling::SamplingFields;
use crate::request::tools::Tools;
use crate::request::whole::Whole;
use crate::state::AppState;
use axum::extract::State;
use axum::response::Response;
use mlx_serving_engine::{MAX_ALTERNATIVES, Sampling};
use mlx_serving_runtime::{Conversation, Input, ToolChoice};
use serde::de::{Deserialize, Deserializer, Error};
use std::sync::Arc;

object! {
    /// The body.
    pub(crate) struct ChatRequest {
        messages: Messages = required,
        max_completion_tokens: TokenLimit,
        logprobs: bool,
        top_logprobs: Alternatives,
        tools: Definitions,
        tool_choice: Choice,
        parallel_tool_calls: bool,
        /// The prompt ends with the beginning of an answer.
        add_generation_prompt: bool,
        /// The answer goes on where the last message ends.
        continue_final_message: bool,
    }
    with shared: SharedFields, sampling: SamplingFields, structure: StructureFields, reasoning: ReasoningFields
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

const NAMES: Names = Names(&[
    ("prompt", "messages"),
    ("reasoning_budget", "thinking_token_budget"),
    ("tools[].strict", "tools[].function.strict"),
    ("tools[].parameters", "tools[].function.parameters"),
]);
/// The same where the client uses the newer name for the limit.
const NEWER_NAMES: Names = Names(&[
    ("prompt", "messages"),
    ("reasoning_budget", "thinking_token_budget"),
    ("max_tokens", "max_completion_tokens"),
    ("tools[].strict", "tools[].function.strict"),
    ("tools[].parameters", "tools[].function.parameters"),
]);

/// What a chat asks for, and the client's names of what it can say in several ways.
#[derive(Debug)]
pub(crate) struct Asked {
    pub ask: Ask,
    pub spelled: Spelled,
}

/// The client's names of an answer's form and of the template's variables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spelled {
    structure: &'static str,
    variables: &'static str,
}

impl Spelled {
    /// An error in the client's names.
    pub(crate) fn error(self, error: ApiError) -> ApiError {
        error.renamed("structure", self.structure).renamed("variables", self.variables)
    }
}

impl ChatRequest {
    /// The answers that are asked for; `defaults` are the model's sampling parameters.
    pub(crate) fn ask(self, defaults: &Sampling) -> Result<Asked, ApiError> {
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
        let logprobs = alternatives(self.logprobs.unwrap_or(false), self.top_logprobs)?;
        let continues = self.continue_final_message.unwrap_or(false);
        if continues && self.add_generation_prompt == Some(true) {
            let message = "continue_final_message and add_generation_prompt are both true; an answer goes on or begins: send one of them";
            return Err(ApiError::invalid("continue_final_message", message));
        }
        let tools = self.tools.unwrap_or_default().0.into_iter().map(Definition::into_function);
        let tools = tools.enumerate().map(|(i, function)| function.into_tool(i)).collect();
        let wish = self.tool_choice.map(|choice| choice.0).unwrap_or_default();
        let tools = Tools::agreed(tools, wish, self.parallel_tool_calls, &PATHS)?;
        let messages = self.messages.into_runtime()?;
        let (structure, field) = self.structure.structure()?.unzip();
        let forces = matches!(tools.choice, ToolChoice::Required | ToolChoice::Named(_));
        if let Some(field) = field.filter(|field| forces && !field.starts_with("response_format")) {
            let message =
                format!("{field} has nothing to hold: tool_choice asks for calls and no text; send one of them");
            return Err(ApiError::invalid(field, message));
        }
        let reasoning_budget = self.reasoning.budget();
        let (variables, variables_field) = self.reasoning.variables()?;
        let conversation = Conversation {
            tools: tools.tools,
            tool_choice: tools.choice,
            parallel_calls: tools.parallel,
            add_generation_prompt: self.add_generation_prompt.unwrap_or(!continues),
            continue_final_message: continues,
            variables,
            ..Conversation::new(messages)
        };
        // A template writes begin tokens itself.
        let special = self.shared.add_special_tokens.unwrap_or(false);
        let ask = Ask {
            inputs: vec![Input::Conversation { conversation, special }],
            choices: self.shared.choices(),
            sampling: self.sampling.over(defaults)?,
            max_tokens: max_tokens.map(|limit| limit.0),
            usual_tokens: None,
            logprobs,
            prompt_logprobs: self.shared.prompt_alternatives(),
            structure,
            reasoning_budget,
            begins_text: !continues,
            stream: self.shared.streams(),
            ignore_eos: self.shared.ignore_eos.unwrap_or(false),
            stop: self.shared.stop.unwrap_or_default().0,
            names,
        };
        let structure = field.unwrap_or("response_format");
        Ok(Asked { ask, spelled: Spelled { structure, variables: variables_field } })
    }

    /// Checks all that can be without a model; for fuzzing.
    pub(crate) fn check(self) {
        // Refusals are as good as requests here: neither may panic.
        let _ = self.ask(&Sampling::default()).map(|asked| asked.ask.requests(vec![1].into(), 2));
    }
}

/// Alternatives to report beside each token, if log-probabilities are asked for.
fn alternatives(logprobs: bool, top: Option<Alternatives>) -> Result<Option<usize>, ApiError> {
    match (logprobs, top) {
        (true, Some(Alternatives(top))) if top > MAX_ALTERNATIVES => {
            let message = format!("top_logprobs is {top}; it is at most {MAX_ALTERNATIVES}");
            Err(ApiError::invalid("top_logprobs", message))
        }
        (true, top) => Ok(Some(top.map_or(0, |top| top.0))),
        (false, None | Some(Alternatives(0))) => Ok(None),
        (false, Some(_)) => Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs to be true")),
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
    let (as_ids, tells_ids) = (request.shared.return_tokens_as_token_ids.unwrap_or(false), request.shared.tells_ids());
    let (reasons, prompt) = (request.reasoning.included(), request.shared.prompt_alternatives());
    let Asked { ask, spelled } = request.ask(&model.card().defaults)?;
    let n = ask.choices;
    let answer = generation::answer(&state, &model, (permit, account), ask, move |model, prompts| {
        let ids = prompts.first().filter(|_| tells_ids).map(|ready| ready.ids.clone());
        let choices =
            ChatChoices::new(model.tokenizer().clone(), n).naming(as_ids).reasoning(reasons).telling(ids, prompt);
        Ok(Completion::new(&model.card().id, usages, choices))
    });
    answer.await.map_err(|error| spelled.error(error))
}
