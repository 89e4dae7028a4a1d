//! Messages and the blocks of their content.

use crate::error::shorten;
use crate::request::bounded::{self, Bounded};
use crate::request::object::{TextOrList, object, text_or_list, word};
use mlx_serving_runtime::{Message, Role, ToolCall};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// Messages of one request at most, as the model sees them: results of tools are messages of their own.
const MAX_MESSAGES: usize = 4096;
/// Words before the result of a call that failed: templates have no other place to say so.
const FAILED: &str = "Error: ";

/// `messages`, as the model sees them.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub list: Vec<Message>,
    /// The last one is the beginning of the answer.
    pub prefilled: bool,
    /// Values of JSON in all calls, at most.
    values: usize,
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Messages;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Messages, A::Error> {
                let mut messages = Messages::default();
                while let Some(message) = list.next_element::<InputMessage>()? {
                    messages.push(message).map_err(A::Error::custom)?;
                }
                Ok(messages)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl Messages {
    /// Takes the next message.
    fn push(&mut self, message: InputMessage) -> Result<(), String> {
        let role = message.role;
        let blocks = match message.content {
            Content::Text(text) => vec![Block::Text(text)],
            Content::Blocks(blocks) => blocks,
        };
        self.prefilled = role == Role::Assistant;
        let mut said = Message::new(role, "");
        let mut results = false;
        for block in blocks {
            match block {
                Block::Text(text) if said.content.is_empty() => said.content = text,
                Block::Text(text) => said.content += &text,
                Block::Thinking(text) => *said.reasoning.get_or_insert_default() += &text,
                Block::Redacted => {}
                Block::Call(call, values) => {
                    self.values += values;
                    self.prefilled = false;
                    said.calls.push(call);
                }
                Block::Result(result) => {
                    // What stands before it was said before it.
                    if !said.content.is_empty() {
                        self.list.push(std::mem::replace(&mut said, Message::new(role, "")));
                    }
                    results = true;
                    self.list.push(result);
                }
            }
        }
        if !results || !said.content.is_empty() {
            self.list.push(said);
        }
        if self.list.len() > MAX_MESSAGES {
            return Err(format!("has more than {MAX_MESSAGES} entries, which is the limit"));
        }
        if self.values > bounded::MAX_VALUES {
            return Err(format!("has more than {} values in its calls, which is the limit", bounded::MAX_VALUES));
        }
        Ok(())
    }
}

/// One entry of `messages`.
#[derive(Debug)]
pub(crate) struct InputMessage {
    role: Role,
    content: Content,
}

object! {
    /// Its fields.
    pub(crate) struct MessageFields {
        role: Author = required,
        content: Content = required,
        /// Says where a prefix may end; here all share what they have in common.
        _cache as "cache_control": IgnoredAny,
    }
}

impl<'de> Deserialize<'de> for InputMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let MessageFields { role, content, .. } = MessageFields::deserialize(deserializer)?;
        if let Content::Blocks(blocks) = &content {
            for block in blocks {
                if let Some(owner) = block.owner().filter(|owner| *owner != role.0) {
                    let (kind, role, owner) = (block.kind(), role.0.as_str(), owner.as_str());
                    return Err(D::Error::custom(format!(
                        "has the role {role} and a block of type {kind}, which only the role {owner} has"
                    )));
                }
            }
        }
        Ok(Self { role: role.0, content })
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Author(Role);

impl<'de> Deserialize<'de> for Author {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |role| match role {
            "user" => Ok(Self(Role::User)),
            "assistant" => Ok(Self(Role::Assistant)),
            "system" => Ok(Self(Role::System)),
            other => Err(format!("is {:?}, which is none of user, assistant and system", shorten(other))),
        })
    }
}

/// A message's content: a string or blocks.
#[derive(Debug)]
pub(crate) enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer)
    }
}

impl TextOrList for Content {
    const EXPECTED: &'static str = "a string or a list of blocks";

    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut blocks: Vec<Block> = Vec::new();
        while let Some(block) = list.next_element()? {
            match (blocks.last_mut(), block) {
                // An empty block costs more to keep than to read.
                (Some(Block::Text(text)), Block::Text(more)) => *text += &more,
                (_, block) => blocks.push(block),
            }
        }
        Ok(Self::Blocks(blocks))
    }
}

/// A block of content.
#[derive(Debug)]
pub(crate) enum Block {
    Text(String),
    /// Reasoning of an earlier answer. Its signature says nothing here.
    Thinking(String),
    /// Reasoning that nobody here can read.
    Redacted,
    /// A call, and the values of JSON in it at most.
    Call(ToolCall, usize),
    /// A call's result.
    Result(Message),
}

object! {
    /// Fields of all kinds of blocks.
    pub(crate) struct BlockFields {
        kind as "type": Kind = required,
        text: String,
        thinking: String,
        /// A value of whoever made the block.
        _signature as "signature": IgnoredAny,
        _data as "data": IgnoredAny,
        id: String,
        name: String,
        input: Bounded,
        tool_use_id: String,
        content: Texts,
        is_error: bool,
        _cache as "cache_control": IgnoredAny,
        /// Places in documents, which this server takes none of.
        _citations as "citations": IgnoredAny,
        /// Says that the model made the call, as always here.
        _caller as "caller": IgnoredAny,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Text,
    Thinking,
    Redacted,
    ToolUse,
    ToolResult,
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |kind| match kind {
            "text" => Ok(Self::Text),
            "thinking" => Ok(Self::Thinking),
            "redacted_thinking" => Ok(Self::Redacted),
            "tool_use" => Ok(Self::ToolUse),
            "tool_result" => Ok(Self::ToolResult),
            "image" | "document" => Err(format!("is {kind:?}: this server takes text only, no images or documents")),
            other => Err(format!(
                "is {:?}; this server takes text, thinking, redacted_thinking, tool_use and tool_result",
                shorten(other)
            )),
        })
    }
}

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = BlockFields::deserialize(deserializer)?;
        fields.into_block().map_err(|(kind, field)| D::Error::custom(format!("has the type {kind} but no {field}")))
    }
}

impl BlockFields {
    /// The block, or its type and the field that is missing.
    fn into_block(self) -> Result<Block, (&'static str, &'static str)> {
        Ok(match self.kind {
            Kind::Text => Block::Text(self.text.ok_or(("text", "text"))?),
            Kind::Thinking => Block::Thinking(self.thinking.ok_or(("thinking", "thinking"))?),
            Kind::Redacted => Block::Redacted,
            Kind::ToolUse => {
                let input = self.input.ok_or(("tool_use", "input"))?;
                let call = ToolCall {
                    id: self.id.ok_or(("tool_use", "id"))?,
                    name: self.name.ok_or(("tool_use", "name"))?,
                    arguments: Value::Object(input.object),
                };
                Block::Call(call, input.values)
            }
            Kind::ToolResult => {
                let text = self.content.unwrap_or_default().0;
                let text = if self.is_error == Some(true) { format!("{FAILED}{text}") } else { text };
                let call_id = Some(self.tool_use_id.ok_or(("tool_result", "tool_use_id"))?);
                Block::Result(Message { call_id, ..Message::new(Role::Tool, text) })
            }
        })
    }
}

impl Block {
    /// The only role whose messages have such blocks.
    fn owner(&self) -> Option<Role> {
        match self {
            Self::Text(_) => None,
            Self::Thinking(_) | Self::Redacted | Self::Call(..) => Some(Role::Assistant),
            Self::Result(_) => Some(Role::User),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Thinking(_) => "thinking",
            Self::Redacted => "redacted_thinking",
            Self::Call(..) => "tool_use",
            Self::Result(_) => "tool_result",
        }
    }
}

/// Text as a string, or as blocks, which are joined.
#[derive(Debug, Default)]
pub(crate) struct Texts(pub String);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer)
    }
}

impl TextOrList for Texts {
    const EXPECTED: &'static str = "a string or a list of blocks {\"type\": \"text\", \"text\": …}";

    fn text(text: &str) -> Self {
        Self(text.to_owned())
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut text = String::new();
        while let Some(block) = list.next_element::<TextBlock>()? {
            text += &block.text;
        }
        Ok(Self(text))
    }
}

object! {
    /// A block of text where nothing else may stand.
    pub(crate) struct TextBlock {
        _kind as "type": OnlyText = required,
        text: String = required,
        _cache as "cache_control": IgnoredAny,
        _citations as "citations": IgnoredAny,
    }
}

#[derive(Debug)]
pub(crate) struct OnlyText;

impl<'de> Deserialize<'de> for OnlyText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |kind| match kind {
            "text" => Ok(Self),
            other => Err(format!("is {:?}; only blocks of type text are taken here", shorten(other))),
        })
    }
}
