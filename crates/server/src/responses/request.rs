//! The body of `POST /v1/responses`.

use super::items::{Item, Items, MAX_MESSAGES, Messages, kept_item};
use super::object::{Frame, now};
use super::tools::{Choice, Definition, agreed, repeated};
use crate::error::{ApiError, shorten};
use crate::generation::{Ask, Names};
use crate::ids::secret;
use crate::request::bounded::Bounded;
use crate::request::format::FormatKind;
use crate::request::object::{object, word};
use crate::request::reasoning::{Effort, variables};
use crate::request::sampling::{SamplingFields, shortest};
use crate::request::tools::List;
use crate::request::whole::Whole;
use crate::stored::Store;
use mlx_serving_engine::Sampling;
use mlx_serving_runtime::{Conversation, Input, Message, Role, Structure};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny};
use serde_json::{Map, Value, json};

object! {
    /// The body.
    pub(crate) struct ResponseRequest {
        model: String,
        input: Items,
        instructions: String,
        previous_response_id: String,
        store: bool,
        stream: bool,
        _options as "stream_options": StreamOptions,
        max_output_tokens: Limit,
        tools: List<Definition>,
        tool_choice: Choice,
        parallel_tool_calls: bool,
        text: Text,
        reasoning: Reasoning,
        include: Include,
        metadata: Metadata,
        /// Calls of tools that a server runs, at most: there are none.
        max_tool_calls: Whole,
        /// Goes to the log.
        user: String,
        /// OpenAI's newer name for `user`.
        safety_identifier: String,
        /// Says which requests begin alike; here all share what they have in common.
        prompt_cache_key: String,
        _retention as "prompt_cache_retention": IgnoredAny,
        _cache as "prompt_cache_options": IgnoredAny,
        /// Notes of an agent to its own server.
        _client as "client_metadata": IgnoredAny,
        _programs as "access_programs": IgnoredAny,
        _truncation as "truncation": Truncation,
    }
    with sampling: SamplingFields
}

/// `max_output_tokens`
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit(usize);

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Whole(limit) = Whole::deserialize(deserializer)?;
        let within = usize::try_from(limit).ok().filter(|limit| *limit > 0);
        within.map(Self).ok_or_else(|| D::Error::custom(format!("is {limit}; it must be at least 1")))
    }
}

object! {
    /// `stream_options`
    pub(crate) struct StreamOptions {
        /// Padding against those who listen to the length of events; it says nothing.
        _obfuscation as "include_obfuscation": bool,
    }
}

object! {
    /// `text`
    pub(crate) struct Text {
        format: Format,
    }
}

object! {
    /// `text.format`
    pub(crate) struct Format {
        kind as "type": FormatKind = required,
        name: String,
        description: String,
        schema: Bounded,
        strict: bool,
    }
}

object! {
    /// `reasoning`
    pub(crate) struct Reasoning {
        effort: Effort,
        summary: Summary,
        /// An older name of `summary`.
        generate_summary: Summary,
    }
}

/// A summary of reasoning, for which the reasoning itself stands here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary(&'static str);

impl<'de> Deserialize<'de> for Summary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |word| {
            let known = ["auto", "concise", "detailed"].into_iter().find(|known| *known == word);
            known
                .map(Self)
                .ok_or_else(|| format!("is {:?}, which is none of auto, concise and detailed", shorten(word)))
        })
    }
}

const ENCRYPTED: &str = "reasoning.encrypted_content";
const LOGPROBS: &str = "message.output_text.logprobs";
/// Entries of `include` about tools of OpenAI's and images: there are none here, so that nothing is left out.
const FOREIGN: [&str; 6] = [
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
];

/// `include`: what an answer tells beside the usual.
#[derive(Debug)]
pub(crate) struct Include {
    encrypted: bool,
}

impl<'de> Deserialize<'de> for Include {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = Vec::<String>::deserialize(deserializer)?;
        if parts.iter().any(|part| part == LOGPROBS) {
            let message = format!("has {LOGPROBS:?}, which this server tells in chat and text completions only");
            return Err(D::Error::custom(message));
        }
        if let Some(part) = parts.iter().find(|part| **part != ENCRYPTED && !FOREIGN.contains(&part.as_str())) {
            let message =
                format!("has {:?}, which this API does not have; leave it out, or send {ENCRYPTED}", shorten(part));
            return Err(D::Error::custom(message));
        }
        Ok(Self { encrypted: parts.iter().any(|part| part == ENCRYPTED) })
    }
}

/// Entries of `metadata` at most, and characters of their keys and values.
const MAX_METADATA: usize = 16;
const MAX_KEY: usize = 64;
const MAX_VALUE: usize = 512;

/// `metadata`, which the answer repeats.
#[derive(Debug, Default)]
pub(crate) struct Metadata(Map<String, Value>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Bounded { object, .. } = Bounded::deserialize(deserializer)?;
        if object.len() > MAX_METADATA {
            return Err(D::Error::custom(format!("has more than {MAX_METADATA} entries, which is the limit")));
        }
        for (key, value) in &object {
            let Some(text) = value.as_str() else {
                return Err(D::Error::custom(format!("has a value for {:?} that is not a string", shorten(key))));
            };
            if key.chars().count() > MAX_KEY || text.chars().count() > MAX_VALUE {
                return Err(D::Error::custom(format!(
                    "has the entry {:?}; keys have at most {MAX_KEY} characters and values {MAX_VALUE}",
                    shorten(key)
                )));
            }
        }
        Ok(Self(object))
    }
}

/// `truncation`: what is too long is refused.
#[derive(Debug)]
pub(crate) struct Truncation;

impl<'de> Deserialize<'de> for Truncation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |truncation| match truncation {
            "disabled" => Ok(Self),
            "auto" => Err("is \"auto\", but this server leaves nothing out of a conversation; leave it out".into()),
            other => Err(format!("is {:?}; it has to be disabled", shorten(other))),
        })
    }
}

const NAMES: Names = Names(&[
    ("prompt", "input"),
    ("max_tokens", "max_output_tokens"),
    ("variables", "reasoning"),
    ("structure", "text.format"),
]);

/// A request that has been checked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub ask: Ask,
    pub frame: Frame,
    /// The conversation, without instructions, if the answer is kept.
    pub conversation: Option<Vec<Message>>,
    /// Types of tools that the model is not told of.
    pub foreign: Vec<String>,
}

impl ResponseRequest {
    /// Tells the log whom the request is for.
    pub(super) fn log(&self, model: &str) {
        if let Some(user) = &self.user {
            tracing::debug!(user, model, "response");
        }
        if let Some(safety_identifier) = &self.safety_identifier {
            tracing::debug!(safety_identifier, model, "response");
        }
        if let Some(key) = &self.prompt_cache_key {
            tracing::debug!(key, model, "response: prefixes are shared whatever the key");
        }
    }

    /// The answer that is asked for, of the model of that name with these sampling parameters of its own.
    ///
    /// # Errors
    /// 400 for what contradicts itself, or refers to what is not kept.
    pub(super) fn asked(mut self, model: &str, defaults: &Sampling, store: &Store) -> Result<Asked, ApiError> {
        if self.store == Some(true) && !store.is_on() {
            let message = "store is true, but this server keeps no responses (server.limits.stored_responses is 0)";
            return Err(ApiError::invalid("store", message));
        }
        let keeps = self.store.unwrap_or(true) && store.is_on();
        let said = self.said(store)?;
        let definitions = self.tools.take().unwrap_or_default().0;
        let choice = self.tool_choice.take().unwrap_or_default();
        let repeated_choice = choice.repeated();
        let (tools, foreign) = agreed(definitions, choice, self.parallel_tool_calls)?;
        let (structure, format) = self.format()?;
        let sampling = std::mem::take(&mut self.sampling).over(defaults)?;
        let reasoning = self.reasoning.take();
        let effort = reasoning.as_ref().and_then(|reasoning| reasoning.effort);
        let summary = reasoning.as_ref().and_then(|reasoning| reasoning.summary.or(reasoning.generate_summary));
        let instructions = self.instructions.as_ref().filter(|text| !text.is_empty());
        let instructions = instructions.map(|text| Message::new(Role::System, text.as_str()));
        let conversation = Conversation {
            tools: tools.tools,
            tool_choice: tools.choice,
            parallel_calls: tools.parallel,
            variables: variables(None, effort),
            ..Conversation::new(instructions.into_iter().chain(said.iter().cloned()).collect())
        };
        let mut repeated = self.repeated(&conversation, &sampling, (effort, summary), format, keeps);
        repeated.insert("tool_choice".into(), repeated_choice);
        let frame = Frame {
            secret: secret(),
            created: now(),
            model: model.to_owned(),
            repeated,
            summary: summary.is_some(),
            encrypted: self.include.is_some_and(|include| include.encrypted),
        };
        let ask = Ask {
            inputs: vec![Input::Conversation { conversation, special: false }],
            choices: 1,
            sampling,
            max_tokens: self.max_output_tokens.map(|limit| limit.0),
            usual_tokens: None,
            stop: Vec::new(),
            ignore_eos: false,
            logprobs: None,
            prompt_logprobs: None,
            structure,
            reasoning_budget: None,
            begins_text: true,
            stream: self.stream.unwrap_or(false),
            names: NAMES,
        };
        Ok(Asked { ask, frame, conversation: keeps.then_some(said), foreign })
    }

    /// What has been said: the conversation that goes on, if one does, and the request's own items.
    fn said(&mut self, store: &Store) -> Result<Vec<Message>, ApiError> {
        let mut messages = match &self.previous_response_id {
            Some(id) => Messages::after(&*store.find(id).map_err(ApiError::about_previous)?),
            None => Messages::default(),
        };
        for (i, item) in self.input.take().unwrap_or_default().0.into_iter().enumerate() {
            let item = match item {
                Item::Reference(id) => kept_item(store, &id).ok_or_else(|| {
                    let path = format!("input[{i}].id");
                    let message = format!("{path} is {:?}, an item of no response that is kept here", shorten(&id));
                    ApiError::invalid(path, message)
                })?,
                item => item,
            };
            messages.push(item);
        }
        let mut messages = messages.0;
        // Agents ask for nothing to see whether a server answers; templates want somebody to have spoken.
        if messages.iter().all(|message| message.role == Role::System) {
            messages.push(Message::new(Role::User, ""));
        }
        if messages.len() > MAX_MESSAGES {
            let message = format!("the conversation has {} messages; at most {MAX_MESSAGES} are taken", messages.len());
            return Err(ApiError::invalid("input", message));
        }
        Ok(messages)
    }

    /// The form of the answer, and how the answer repeats it.
    fn format(&mut self) -> Result<(Option<Structure>, Value), ApiError> {
        let Some(format) = self.text.take().and_then(|text| text.format) else {
            return Ok((None, json!({ "type": "text" })));
        };
        match (format.kind, format.schema) {
            (FormatKind::Text, _) => Ok((None, json!({ "type": "text" }))),
            (FormatKind::Object, _) => Ok((Some(Structure::Object), json!({ "type": "json_object" }))),
            (FormatKind::Schema, None) => {
                Err(ApiError::invalid("text.format.schema", "text.format has the type json_schema but no schema"))
            }
            (FormatKind::Schema, Some(schema)) => {
                let schema = Value::Object(schema.object);
                let repeated = json!({
                    "type": "json_schema", "name": format.name.unwrap_or_default(), "description": format.description,
                    "schema": schema, "strict": format.strict,
                });
                Ok((Some(Structure::Schema(schema)), repeated))
            }
        }
    }

    /// What the answer repeats.
    fn repeated(
        &self,
        conversation: &Conversation,
        sampling: &Sampling,
        (effort, summary): (Option<Effort>, Option<Summary>),
        format: Value,
        keeps: bool,
    ) -> Map<String, Value> {
        let tools: Vec<Value> = conversation.tools.iter().map(repeated).collect();
        let repeated = json!({
            "background": false,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens.map(|limit| limit.0),
            "max_tool_calls": self.max_tool_calls.map(|calls| calls.0),
            "metadata": self.metadata.as_ref().map_or_else(Map::new, |metadata| metadata.0.clone()),
            "parallel_tool_calls": conversation.parallel_calls,
            "previous_response_id": self.previous_response_id,
            "prompt_cache_key": self.prompt_cache_key,
            "reasoning": { "effort": effort.map(|effort| effort.0), "summary": summary.map(|summary| summary.0) },
            "safety_identifier": self.safety_identifier,
            "service_tier": "default",
            "store": keeps,
            "temperature": shortest(sampling.temperature),
            "text": { "format": format, "verbosity": "medium" },
            "tools": tools,
            "top_logprobs": 0,
            "top_p": shortest(sampling.top_p),
            "truncation": "disabled",
            "user": self.user,
        });
        if let Value::Object(repeated) = repeated { repeated } else { Map::new() }
    }

    /// Checks all that can be without a model; for fuzzing.
    pub(crate) fn check(self) {
        // Refusals are as good as requests here: neither may panic.
        let asked = self.asked("m", &Sampling::default(), &Store::new(0, 0));
        let _ = asked.map(|asked| asked.ask.requests(vec![1].into(), 2));
    }
}
