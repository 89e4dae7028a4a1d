//! Conversations, as chat templates know them.

use serde_json::{Map, Value};

/// Author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// Its name in chat templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its author.
    pub role: Role,
    /// Its text; empty where an assistant said nothing.
    pub content: String,
    /// Name of the author, where several share a role.
    pub name: Option<String>,
}

impl Message {
    /// A message without a name.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), name: None }
    }

    /// The message as templates read it.
    fn into_value(self) -> Value {
        let mut message = Map::new();
        message.insert("role".into(), self.role.as_str().into());
        message.insert("content".into(), self.content.into());
        if let Some(name) = self.name {
            message.insert("name".into(), name.into());
        }
        Value::Object(message)
    }
}

/// Messages that an answer continues.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// Oldest first.
    pub messages: Vec<Message>,
    /// Further variables of the model's chat template.
    pub variables: Option<Map<String, Value>>,
}

impl Conversation {
    /// A conversation of these messages.
    pub fn new(messages: Vec<Message>) -> Self {
        Self { messages, variables: None }
    }

    /// Messages and variables as templates read them.
    pub(crate) fn into_values(self) -> (Vec<Value>, Option<Map<String, Value>>) {
        (self.messages.into_iter().map(Message::into_value).collect(), self.variables)
    }
}
