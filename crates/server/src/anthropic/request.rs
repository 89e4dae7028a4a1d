//! The body of `POST /v1/messages`, and of `POST /v1/messages/count_tokens`.

use super::content::{Messages, TextBlock, Texts};
use super::tools::{Choice, Definition, agreed};
use crate::error::{ApiError, shorten};
use crate::generation::{Ask, Names};
use crate::request::bounded::Bounded;
use crate::request::object::{TextOrList, object, text_or_list, word};
use crate::request::reasoning::{Effort, variables};
use crate::request::sampling::SamplingFields;
use crate::request::tools::List;
use crate::request::whole::Whole;
use mlx_serving_engine::Sampling;
use mlx_serving_runtime::{Conversation, Input, Message, Role, Structure};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess};
use serde_json::Value;

object! {
    /// The body.
    pub(crate) struct MessagesRequest {
        model: String,
        messages: Messages = required,
        /// Required where an answer is asked for.
        max_tokens: Limit,
        system: System,
        stop_sequences: Stops,
        stream: bool,
        tools: List<Definition>,
        tool_choice: Choice,
        thinking: Thinking,
        output_config: OutputConfig,
        /// An older name of `output_config.format`.
        output_format: Format,
        metadata: Metadata,
        _tier as "service_tier": Tier,
        /// Says where a prefix may end; here all share what they have in common.
        _cache as "cache_control": IgnoredAny,
        /// Edits of a long conversation, none of which are made here: the answer says so.
        context_management: IgnoredAny,
    }
    with sampling: SamplingFields
}

/// `max_tokens`
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit(usize);

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Whole(limit) = Whole::deserialize(deserializer)?;
        let least = |limit: &usize| *limit > 0;
        let limit = usize::try_from(limit).ok().filter(least).ok_or(limit);
        limit.map(Self).map_err(|limit| D::Error::custom(format!("is {limit}; it must be at least 1")))
    }
}

/// Stop strings of a request at most: each costs time at every token.
const MAX_STOPS: usize = 64;

/// `stop_sequences`
#[derive(Debug, Default)]
pub(crate) struct Stops(Vec<String>);

impl<'de> Deserialize<'de> for Stops {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stops = Vec::<String>::deserialize(deserializer)?;
        if stops.len() > MAX_STOPS {
            return Err(D::Error::custom(format!("has more than {MAX_STOPS} entries, which is the limit")));
        }
        if stops.iter().any(String::is_empty) {
            return Err(D::Error::custom("has an empty string, at which every answer would end"));
        }
        Ok(Self(stops))
    }
}

/// Beginning of a line that one agent puts before its instructions and changes in every request. No two prompts would share a prefix.
const BILLING: &str = "x-anthropic-billing-header:";

/// `system`: a string or blocks, which are joined.
#[derive(Debug, Default)]
pub(crate) struct System {
    /// The agent's line, with the line's end.
    billing: String,
    text: String,
}

impl System {
    fn of(mut first: String) -> Self {
        if !first.starts_with(BILLING) {
            return Self { billing: String::new(), text: first };
        }
        let end = first.find('\n').map_or(first.len(), |end| end + 1);
        let text = first.split_off(end);
        Self { billing: first, text }
    }

    /// The instructions, without the agent's line if that is what the server is told.
    fn into_text(self, strip: bool) -> String {
        if strip { self.text } else { self.billing + &self.text }
    }
}

impl<'de> Deserialize<'de> for System {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer)
    }
}

impl TextOrList for System {
    const EXPECTED: &'static str = Texts::EXPECTED;

    fn text(text: &str) -> Self {
        Self::of(text.to_owned())
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let first = list.next_element::<TextBlock>()?;
        let mut system = first.map_or_else(Self::default, |block| Self::of(block.text));
        system.text += &Texts::list(list)?.0;
        Ok(system)
    }
}

object! {
    /// `thinking`
    pub(crate) struct Thinking {
        kind as "type": ThinkingKind = required,
        budget_tokens: Limit,
        display: Display,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ThinkingKind {
    Enabled,
    Adaptive,
    Disabled,
}

impl<'de> Deserialize<'de> for ThinkingKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |kind| match kind {
            "enabled" => Ok(Self::Enabled),
            "adaptive" => Ok(Self::Adaptive),
            "disabled" => Ok(Self::Disabled),
            other => Err(format!("is {:?}; this server takes enabled, adaptive and disabled", shorten(other))),
        })
    }
}

/// `thinking.display`: true where the text of reasoning is left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Display {
    omitted: bool,
}

impl<'de> Deserialize<'de> for Display {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |display| match display {
            // Nothing is shortened.
            "summarized" => Ok(Self { omitted: false }),
            "omitted" => Ok(Self { omitted: true }),
            other => Err(format!("is {:?}, which is none of summarized and omitted", shorten(other))),
        })
    }
}

object! {
    /// `output_config`
    pub(crate) struct OutputConfig {
        effort: Effort,
        format: Format,
    }
}

object! {
    /// `output_config.format`
    pub(crate) struct Format {
        _kind as "type": Schema = required,
        schema: Bounded = required,
    }
}

/// The only type of format.
#[derive(Debug)]
pub(crate) struct Schema;

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |kind| match kind {
            "json_schema" => Ok(Self),
            other => Err(format!("is {:?}; it has to be json_schema", shorten(other))),
        })
    }
}

object! {
    /// `metadata`
    pub(crate) struct Metadata {
        /// Goes to the log.
        user_id: String,
    }
}

/// `service_tier`, of which there is one.
#[derive(Debug)]
pub(crate) struct Tier;

impl<'de> Deserialize<'de> for Tier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |tier| match tier {
            "auto" | "standard_only" => Ok(Self),
            other => Err(format!("is {:?}, which is none of auto and standard_only", shorten(other))),
        })
    }
}

const NAMES: Names = Names(&[
    ("prompt", "messages"),
    ("stop", "stop_sequences"),
    ("variables", "thinking"),
    ("structure", "output_config.format"),
    ("tools[].parameters", "tools[].input_schema"),
]);
/// The same where the client uses the older name of the format.
const OLDER_NAMES: Names = Names(&[
    ("prompt", "messages"),
    ("stop", "stop_sequences"),
    ("variables", "thinking"),
    ("structure", "output_format"),
    ("tools[].parameters", "tools[].input_schema"),
]);

/// Parts of a request that shape how its answer is told.
#[derive(Debug)]
pub(crate) struct Details {
    /// Tokens of the answer at most.
    pub max_tokens: usize,
    /// The text of reasoning is left out.
    pub hides_thinking: bool,
    /// The answer says that a conversation was not edited.
    pub edits: bool,
    /// Types of tools that the model is not told of.
    pub foreign: Vec<String>,
}

impl MessagesRequest {
    /// Tells the log whom the request is for.
    pub(super) fn log(&self, model: &str) {
        if let Some(user_id) = self.metadata.as_ref().and_then(|metadata| metadata.user_id.as_ref()) {
            tracing::debug!(user_id, model, "message");
        }
    }

    /// The answer that is asked for; `defaults` are the model's sampling parameters, `strip` says whether the line that an agent changes in
    /// every request is left out.
    ///
    /// # Errors
    /// 400 for what contradicts itself.
    pub(super) fn ask(self, defaults: &Sampling, strip: bool) -> Result<(Ask, Details), ApiError> {
        let Some(Limit(max_tokens)) = self.max_tokens else {
            return Err(ApiError::invalid("max_tokens", "max_tokens is missing"));
        };
        let (stream, hides_thinking) = (self.stream.unwrap_or(false), self.hides_thinking());
        let (edits, budget) = (self.context_management.is_some(), self.budget()?);
        let names = if self.output_format.is_some() { OLDER_NAMES } else { NAMES };
        let Self { messages, system, stop_sequences, tools, tool_choice, thinking, sampling, .. } = self;
        let config = self.output_config.unwrap_or(OutputConfig { effort: None, format: None });
        if config.format.is_some() && self.output_format.is_some() {
            let message = "output_format and output_config.format are both given; send the latter alone";
            return Err(ApiError::invalid("output_format", message));
        }
        let format = config.format.or(self.output_format);
        let begins_text = !messages.prefilled;
        let (conversation, foreign) =
            conversation(messages, system.unwrap_or_default(), (tools, tool_choice), (thinking, config.effort), strip)?;
        let ask = Ask {
            inputs: vec![Input::Conversation { conversation, special: false }],
            choices: 1,
            sampling: sampling.over(defaults)?,
            // The context bounds an answer too, and the reason for its end says which of the two did.
            max_tokens: None,
            usual_tokens: Some(max_tokens),
            stop: stop_sequences.unwrap_or_default().0,
            ignore_eos: false,
            logprobs: None,
            prompt_logprobs: None,
            structure: format.map(|format| Structure::Schema(Value::Object(format.schema.object))),
            reasoning_budget: budget,
            begins_text,
            stream,
            names,
        };
        Ok((ask, Details { max_tokens, hides_thinking, edits, foreign }))
    }

    /// The prompt whose tokens are counted.
    ///
    /// # Errors
    /// 400 for what contradicts itself.
    pub(super) fn prompt(self, strip: bool) -> Result<(Input, Names), ApiError> {
        let Self { messages, system, tools, tool_choice, thinking, .. } = self;
        let effort = self.output_config.and_then(|config| config.effort);
        let tools = (tools, tool_choice);
        let (mut conversation, _) =
            conversation(messages, system.unwrap_or_default(), tools, (thinking, effort), strip)?;
        // Nothing is held to a schema here, which would take longer than to count.
        if !matches!(conversation.tool_choice, mlx_serving_runtime::ToolChoice::None) {
            conversation.tool_choice = mlx_serving_runtime::ToolChoice::Auto;
        }
        conversation.tools.iter_mut().for_each(|tool| tool.strict = false);
        Ok((Input::Conversation { conversation, special: false }, NAMES))
    }

    fn hides_thinking(&self) -> bool {
        let display = self.thinking.as_ref().and_then(|thinking| thinking.display);
        display.is_some_and(|display| display.omitted)
    }

    /// Tokens of reasoning at most.
    fn budget(&self) -> Result<Option<usize>, ApiError> {
        let Some(thinking) = &self.thinking else { return Ok(None) };
        match (thinking.kind, thinking.budget_tokens) {
            (ThinkingKind::Enabled, Some(Limit(budget))) => Ok(Some(budget)),
            (ThinkingKind::Enabled, None) => {
                Err(ApiError::invalid("thinking.budget_tokens", "thinking has the type enabled but no budget_tokens"))
            }
            (ThinkingKind::Adaptive | ThinkingKind::Disabled, None) => Ok(None),
            (ThinkingKind::Adaptive | ThinkingKind::Disabled, Some(_)) => {
                let message = "thinking.budget_tokens belongs to the type enabled; leave it out";
                Err(ApiError::invalid("thinking.budget_tokens", message))
            }
        }
    }

    /// Checks all that can be without a model; for fuzzing.
    pub(crate) fn check(self) {
        // Refusals are as good as requests here: neither may panic.
        let _ = self.ask(&Sampling::default(), true).map(|(ask, _)| ask.requests(vec![1].into(), 2));
    }
}

/// The conversation, and the types of tools that the model is not told of.
fn conversation(
    messages: Messages,
    system: System,
    (tools, choice): (Option<List<Definition>>, Option<Choice>),
    (thinking, effort): (Option<Thinking>, Option<Effort>),
    strip: bool,
) -> Result<(Conversation, Vec<String>), ApiError> {
    if messages.list.is_empty() {
        return Err(ApiError::invalid("messages", "messages is empty; send at least one"));
    }
    let (tools, foreign) = agreed(tools.unwrap_or_default().0, choice)?;
    let system = Some(system.into_text(strip)).filter(|text| !text.is_empty());
    let system = system.map(|text| Message::new(Role::System, text));
    let on = thinking.map(|thinking| thinking.kind != ThinkingKind::Disabled);
    let conversation = Conversation {
        tools: tools.tools,
        tool_choice: tools.choice,
        parallel_calls: tools.parallel,
        add_generation_prompt: !messages.prefilled,
        continue_final_message: messages.prefilled,
        variables: variables(on, effort),
        ..Conversation::new(system.into_iter().chain(messages.list).collect())
    };
    Ok((conversation, foreign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_changes_in_every_request_is_stripped_from_the_beginning_only() {
        let of = |json: &str, strip| serde_json::from_str::<System>(json).unwrap().into_text(strip);
        let line = "x-anthropic-billing-header: cch=1;";
        let blocks = format!(r#"[{{"type": "text", "text": "{line}"}}, {{"type": "text", "text": "Be brief."}}]"#);
        assert_eq!((of(&blocks, true), of(&blocks, false)), ("Be brief.".into(), format!("{line}Be brief.")));
        let text = format!(r#""{line}\nBe brief.\n{line}""#);
        assert_eq!(of(&text, true), format!("Be brief.\n{line}"));
        assert_eq!(of(&text, false), format!("{line}\nBe brief.\n{line}"));
        let later = format!(r#"[{{"type": "text", "text": "Be brief. "}}, {{"type": "text", "text": "{line}"}}]"#);
        assert_eq!(of(&later, true), format!("Be brief. {line}"));
        assert_eq!((of("[]", true), of(r#""""#, true)), (String::new(), String::new()));
    }
}
