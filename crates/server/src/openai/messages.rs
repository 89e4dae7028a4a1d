//! The messages of a conversation.

use crate::error::ApiError;
use crate::request::fault;
use crate::request::object::{TextOrList, at_most, object, text_or_list, word};
use mlx_serving_runtime as runtime;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::fmt;

/// Messages of one request at most. Each costs hundreds of bytes while a template runs, however little it says.
const MAX_MESSAGES: usize = 4096;
/// Bytes of `chat_template_kwargs` at most: as values they take many times that.
const MAX_KWARGS: usize = 64 << 10;

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

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Messages, A::Error> {
                at_most(MAX_MESSAGES, list, Vec::new()).map(Messages)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl Messages {
    /// # Errors
    /// 400 for what is not there.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        if self.0.is_empty() {
            return Err(ApiError::invalid("messages", "messages is empty; send at least one"));
        }
        // Only an assistant may have said nothing.
        match self.0.iter().position(|m| m.content.is_none() && !matches!(m.role, Role::Assistant)) {
            Some(i) => {
                Err(ApiError::invalid(format!("messages[{i}].content"), format!("messages[{i}] has no content")))
            }
            None => Ok(()),
        }
    }
}

object! {
    /// One message.
    pub(crate) struct Message {
        role: Role = required,
        content: Content,
        name: Box<str>,
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |role| match role {
            // OpenAI's newer name for it.
            "system" | "developer" => Ok(Role::System),
            "user" => Ok(Role::User),
            "assistant" => Ok(Role::Assistant),
            "tool" | "function" => Err("asks for tool calls, which are not supported by this server yet".into()),
            _ => Err("is none of system, developer, user and assistant".into()),
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
    /// The message without OpenAI's ways to write it.
    pub(crate) fn into_runtime(self) -> runtime::Message {
        let role = match self.role {
            Role::System => runtime::Role::System,
            Role::User => runtime::Role::User,
            Role::Assistant => runtime::Role::Assistant,
        };
        let content = self.content.map_or_else(String::new, |content| content.0.into_string());
        runtime::Message { role, content, name: self.name.map(String::from) }
    }
}

/// `chat_template_kwargs`: any values, but few.
#[derive(Debug)]
pub(crate) struct TemplateKwargs(pub Map<String, Value>);

impl<'de> Deserialize<'de> for TemplateKwargs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?.get();
        if raw.len() > MAX_KWARGS {
            return Err(D::Error::custom(format!("has {} bytes; at most {MAX_KWARGS} are taken", raw.len())));
        }
        serde_json::from_str(raw)
            .map(Self)
            .map_err(|e| D::Error::custom(fault(&e).unwrap_or_else(|| "has to be an object".into())))
    }
}
