//! The messages of a conversation.

use crate::error::{ApiError, shorten};
use crate::request::bounded;
use crate::request::object::{TextOrList, object, text_or_list, word};
use crate::request::tools::{Arguments, Entry, List, MAX_CALLS, ToolName};
use crate::request::whole::Whole;
use mlx_serving_runtime as runtime;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use std::fmt;

/// Messages of one request at most. Each costs hundreds of bytes while a template runs, however little it says.
const MAX_MESSAGES: usize = 4096;

/// `messages`
#[derive(Debug)]
pub(crate) struct Messages(pub Vec<Message>);

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Messages;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Messages, A::Error> {
                let (mut messages, mut values) = (Vec::new(), 0);
                while let Some(message) = list.next_element::<Message>()? {
                    values += message.values();
                    if messages.len() >= MAX_MESSAGES {
                        return Err(A::Error::custom(format!(
                            "has more than {MAX_MESSAGES} entries, which is the limit"
                        )));
                    }
                    if values > bounded::MAX_VALUES {
                        let most = bounded::MAX_VALUES;
                        return Err(A::Error::custom(format!(
                            "tells of calls with more than {most} values of JSON, which is the limit"
                        )));
                    }
                    messages.push(message);
                }
                Ok(Messages(messages))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl Messages {
    /// The messages without OpenAI's ways to write them.
    ///
    /// # Errors
    /// 400 for what a message lacks or cannot have.
    pub(crate) fn into_runtime(self) -> Result<Vec<runtime::Message>, ApiError> {
        if self.0.is_empty() {
            return Err(ApiError::invalid("messages", "messages is empty; send at least one"));
        }
        self.0.into_iter().enumerate().map(|(i, message)| message.into_runtime(i)).collect()
    }
}

object! {
    /// One message.
    pub(crate) struct Message {
        role: Role = required,
        content: Content,
        name: Box<str>,
        /// Calls that an assistant made.
        tool_calls: List<ToolCall>,
        /// The call whose result a tool's message is.
        tool_call_id: Box<str>,
        /// Reasoning of an assistant before its text.
        reasoning_content: Box<str>,
        /// vLLM's newer name for it.
        reasoning: Box<str>,
        /// What OpenAI's client has made of the text, and sends back beside it.
        _parsed as "parsed": IgnoredAny,
    }
}

object! {
    /// A call in an assistant's message.
    pub(crate) struct ToolCall {
        id: Box<str> = required,
        _kind as "type": FunctionKind,
        function: CalledFunction = required,
        /// Its place in a stream, which those send back who join the chunks.
        _index as "index": Whole,
    }
}

object! {
    /// The function of a call.
    pub(crate) struct CalledFunction {
        name: ToolName = required,
        arguments: Arguments = required,
        /// What OpenAI's client has made of the arguments.
        _parsed as "parsed_arguments": IgnoredAny,
    }
}

impl Entry for ToolCall {
    const MOST: usize = MAX_CALLS;

    fn values(&self) -> usize {
        self.function.arguments.values
    }
}

/// Functions are the only kind of tools.
#[derive(Debug)]
pub(crate) struct FunctionKind;

impl<'de> Deserialize<'de> for FunctionKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |kind| match kind {
            "function" => Ok(Self),
            _ => Err("is not \"function\", the only type of tool that is supported by this server".into()),
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |role| match role {
            // OpenAI's newer name for it.
            "system" | "developer" => Ok(Role::System),
            "user" => Ok(Role::User),
            "assistant" => Ok(Role::Assistant),
            "tool" => Ok(Role::Tool),
            "function" => {
                Err("is OpenAI's older way to tell a result; send \"tool\" with the call's tool_call_id".into())
            }
            other => {
                Err(format!("is {:?}, which is none of system, developer, user, assistant and tool", shorten(other)))
            }
        })
    }
}

/// A message's text: a string, or parts, which are joined as they are read.
#[derive(Debug)]
pub(crate) struct Content(Box<str>);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer)
    }
}

impl TextOrList for Content {
    const EXPECTED: &'static str = "a string or a list of parts {\"type\": \"text\", \"text\": …}";

    fn text(text: &str) -> Self {
        Self(text.into())
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut text = String::new();
        while let Some(part) = list.next_element::<Part>()? {
            if text.is_empty() {
                text = part.text;
            } else {
                text += &part.text;
            }
        }
        Ok(Self(text.into_boxed_str()))
    }
}

object! {
    /// A part of a message's content.
    pub(crate) struct Part {
        _kind as "type": PartKind = required,
        text: String = required,
    }
}

/// Text is the only kind so far.
#[derive(Debug)]
pub(crate) struct PartKind;

impl<'de> Deserialize<'de> for PartKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |kind| match kind {
            "text" => Ok(PartKind),
            _ => Err("is not \"text\", the only type of content that is supported by this server".into()),
        })
    }
}

impl Message {
    /// Values of JSON in its calls.
    fn values(&self) -> usize {
        self.tool_calls.iter().flat_map(|calls| &calls.0).map(Entry::values).sum()
    }

    /// The message without OpenAI's ways to write it. An empty field asks for nothing: answers are sent back as they came.
    fn into_runtime(self, i: usize) -> Result<runtime::Message, ApiError> {
        let refuse = |field: &str, message: String| {
            let path = format!("messages[{i}].{field}");
            Err(ApiError::invalid(&path, format!("{path} {message}")))
        };
        let role = match self.role {
            Role::System => runtime::Role::System,
            Role::User => runtime::Role::User,
            Role::Assistant => runtime::Role::Assistant,
            Role::Tool => runtime::Role::Tool,
        };
        let given = |text: Option<Box<str>>| text.map(String::from).filter(|text| !text.is_empty());
        let calls = self.tool_calls.unwrap_or_default().0;
        let (content, reasoning) = (given(self.reasoning_content), given(self.reasoning));
        if role != runtime::Role::Assistant {
            let spoken = [("reasoning_content", content.is_some()), ("reasoning", reasoning.is_some())];
            let misplaced = spoken.into_iter().chain([("tool_calls", !calls.is_empty())]).find(|(_, there)| *there);
            if let Some((field, _)) = misplaced {
                return refuse(field, "is only an assistant's; leave it out here".into());
            }
        }
        if let (Some(a), Some(b)) = (&content, &reasoning)
            && a != b
        {
            return refuse("reasoning", "differs from reasoning_content, its other name; send one of them".into());
        }
        let call_id = given(self.tool_call_id);
        match (role == runtime::Role::Tool, &call_id) {
            (true, None) => {
                return refuse("tool_call_id", "is missing; send the id of the call that it answers".into());
            }
            (false, Some(_)) => return refuse("tool_call_id", "is only a tool's; leave it out here".into()),
            _ => {}
        }
        // Only an assistant may have said nothing.
        if self.content.is_none() && role != runtime::Role::Assistant {
            let message = format!("messages[{i}] has no content");
            return Err(ApiError::invalid(format!("messages[{i}].content"), message));
        }
        let call = |call: ToolCall| runtime::ToolCall {
            id: call.id.into(),
            name: call.function.name.0,
            arguments: call.function.arguments.value,
        };
        Ok(runtime::Message {
            role,
            content: self.content.map_or_else(String::new, |content| content.0.into_string()),
            name: self.name.map(String::from),
            reasoning: content.or(reasoning),
            calls: calls.into_iter().map(call).collect(),
            call_id,
        })
    }
}
