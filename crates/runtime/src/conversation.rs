//! Conversations, as chat templates know them.

use serde_json::{Map, Value, json};

/// Author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
    /// A function that the model called.
    Tool,
}

impl Role {
    /// Its name in chat templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its author.
    pub role: Role,
    /// Its text; empty where an assistant said nothing.
    pub content: String,
    /// Name of the author, where several share a role.
    pub name: Option<String>,
    /// Reasoning of an assistant before its text.
    pub reasoning: Option<String>,
    /// Calls that an assistant made.
    pub calls: Vec<ToolCall>,
    /// Id of the call whose result a tool's message is.
    pub call_id: Option<String>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// Its id in the conversation.
    pub id: String,
    /// Name of the tool.
    pub name: String,
    /// Its arguments: an object; a text where the client sent no JSON.
    pub arguments: Value,
}

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its definition in OpenAI's shape, as templates read it: `{"type": "function", "function": {…}}`.
    pub definition: Value,
    /// Schema of its arguments: an object's.
    pub parameters: Value,
    /// Arguments are held to the schema.
    pub strict: bool,
    /// Its index among the tools of a request, by which errors name it.
    pub index: usize,
}

/// Calls that an answer may or must make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// None.
    None,
    /// One at least.
    Required,
    /// One of this tool.
    Named(String),
}

impl Message {
    /// A message without a name.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), name: None, reasoning: None, calls: Vec::new(), call_id: None }
    }

    /// The message as templates read it, its reasoning under `reasoning`, and the arguments of its calls as `arguments` says.
    fn value(&self, reasoning: Option<&str>, arguments: Arguments) -> Map<String, Value> {
        let mut message = Map::new();
        message.insert("role".into(), self.role.as_str().into());
        message.insert("content".into(), self.content.as_str().into());
        if let Some(name) = &self.name {
            message.insert("name".into(), name.as_str().into());
        }
        if let (Some(key), Some(text)) = (reasoning, &self.reasoning) {
            message.insert(key.into(), text.as_str().into());
        }
        if !self.calls.is_empty() {
            let calls = self.calls.iter().map(|call| call.value(arguments)).collect();
            message.insert("tool_calls".into(), Value::Array(calls));
        }
        if let Some(id) = &self.call_id {
            message.insert("tool_call_id".into(), id.as_str().into());
        }
        message
    }
}

impl ToolCall {
    fn value(&self, arguments: Arguments) -> Value {
        let arguments = match (arguments, &self.arguments) {
            (Arguments::Text, value) if !value.is_string() => Value::String(value.to_string()),
            (_, value) => value.clone(),
        };
        json!({ "id": self.id, "type": "function", "function": { "name": self.name, "arguments": arguments } })
    }
}

/// Shape of a call's arguments for a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// Values: most templates write them as JSON, or one by one.
    Values,
    /// The text of their JSON, as OpenAI's API has it.
    Text,
}

/// Place of earlier reasoning for a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Earlier {
    /// A key of the message: the template decides what of it the model sees.
    Key(&'static str),
    /// The message's text, between these markers, in answers after the last message of the user.
    Inline(&'static str, &'static str),
    /// Nowhere.
    Dropped,
}

/// Messages that an answer continues.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// Oldest first.
    pub messages: Vec<Message>,
    /// Tools that the model may call.
    pub tools: Vec<Tool>,
    /// Calls that the answer may or must make.
    pub tool_choice: ToolChoice,
    /// The answer may make several calls.
    pub parallel_calls: bool,
    /// The prompt ends with the beginning of an answer.
    pub add_generation_prompt: bool,
    /// The answer goes on where the last message ends.
    pub continue_final_message: bool,
    /// Further variables of the model's chat template.
    pub variables: Option<Map<String, Value>>,
}

impl Conversation {
    /// A conversation of these messages.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            parallel_calls: true,
            add_generation_prompt: true,
            continue_final_message: false,
            variables: None,
        }
    }

    /// True if the answer may call tools.
    pub(crate) fn has_tools(&self) -> bool {
        !self.tools.is_empty() && self.tool_choice != ToolChoice::None
    }

    /// The messages as templates read them.
    pub(crate) fn values(&self, earlier: Earlier, arguments: Arguments) -> Vec<Value> {
        let last = self.messages.iter().rposition(|message| message.role == Role::User);
        let key = match earlier {
            Earlier::Key(key) => Some(key),
            Earlier::Inline(..) | Earlier::Dropped => None,
        };
        let value = |(at, message): (usize, &Message)| {
            let mut value = message.value(key, arguments);
            if let (Earlier::Inline(open, close), Some(reasoning)) = (earlier, &message.reasoning)
                && Some(at) > last
            {
                value.insert("content".into(), format!("{open}\n{reasoning}\n{close}\n\n{}", message.content).into());
            }
            // Templates that name the function of a result have it from the call.
            if let (Role::Tool, None, Some(id)) = (message.role, &message.name, &message.call_id) {
                let calls = self.messages[..at].iter().rev().flat_map(|message| &message.calls);
                if let Some(call) = calls.into_iter().find(|call| call.id == *id) {
                    value.insert("name".into(), call.name.as_str().into());
                }
            }
            Value::Object(value)
        };
        self.messages.iter().enumerate().map(value).collect()
    }
}

#[cfg(test)]
mod tests;
