//! Items: what a conversation is made of here. Messages, reasoning, calls and their results are items of their own.

use crate::error::shorten;
use crate::request::bounded;
use crate::request::object::{TextOrList, object, text_or_list, word};
use crate::request::parse_within;
use crate::request::tools::Arguments;
use crate::stored::{Store, Stored};
use mlx_serving_runtime::{Message, Role, ToolCall};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess};
use serde_json::Value;

/// Items of one request at most.
const MAX_ITEMS: usize = 16 << 10;
/// Messages that a template gets at most.
pub(super) const MAX_MESSAGES: usize = 4096;
/// Beginning of `encrypted_content` as this server writes it: reasoning follows, in plain text, for clients that send back nothing else of it.
pub(super) const PLAIN: &str = "mlx-serving:";

/// `input`: a string or items.
#[derive(Debug, Default)]
pub(crate) struct Items(pub Vec<Item>);

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer)
    }
}

impl TextOrList for Items {
    const EXPECTED: &'static str = "a string or a list of items";

    fn text(text: &str) -> Self {
        Self(vec![Item::Message(Role::User, text.to_owned())])
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let (mut items, mut values) = (Vec::new(), 0);
        while let Some(item) = list.next_element::<Item>()? {
            if let Item::Call(_, of_call) = &item {
                values += of_call;
            }
            if values > bounded::MAX_VALUES {
                let most = bounded::MAX_VALUES;
                return Err(A::Error::custom(format!("has more than {most} values in its calls, which is the limit")));
            }
            if items.len() >= MAX_ITEMS {
                return Err(A::Error::custom(format!("has more than {MAX_ITEMS} entries, which is the limit")));
            }
            items.push(item);
        }
        Ok(Self(items))
    }
}

/// One item.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    Message(Role, String),
    /// Reasoning of an earlier answer; empty where nobody here can read it.
    Reasoning(String),
    /// A call, and the values of JSON in it at most.
    Call(ToolCall, usize),
    /// A call's id and its result.
    Output(String, String),
    /// An item of an answer that is kept, by its id.
    Reference(String),
}

object! {
    /// Fields of all kinds of items.
    pub(crate) struct ItemFields {
        kind as "type": Kind,
        id: String,
        role: Author,
        content: Texts,
        summary: Texts,
        encrypted_content: String,
        call_id: String,
        name: String,
        arguments: Arguments,
        output: Texts,
        /// Whether an answer came to its end.
        _status as "status": IgnoredAny,
        /// A label of OpenAI's own models.
        _phase as "phase": IgnoredAny,
        /// Says that the model made the call, as always here.
        _caller as "caller": IgnoredAny,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Message,
    Reasoning,
    Call,
    Output,
    Reference,
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |kind| match kind {
            "message" => Ok(Self::Message),
            "reasoning" => Ok(Self::Reasoning),
            "function_call" => Ok(Self::Call),
            "function_call_output" => Ok(Self::Output),
            "item_reference" => Ok(Self::Reference),
            other => Err(format!(
                "is {:?}; this server takes message, reasoning, function_call, function_call_output and item_reference",
                shorten(other)
            )),
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Author(Role);

impl<'de> Deserialize<'de> for Author {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |role| match role {
            "system" | "developer" => Ok(Self(Role::System)),
            "user" => Ok(Self(Role::User)),
            "assistant" => Ok(Self(Role::Assistant)),
            other => Err(format!("is {:?}, which is none of system, developer, user and assistant", shorten(other))),
        })
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = ItemFields::deserialize(deserializer)?;
        fields.into_item().map_err(|(kind, field)| D::Error::custom(format!("is a {kind} but has no {field}")))
    }
}

impl ItemFields {
    /// The item, or its type and the field that is missing.
    fn into_item(self) -> Result<Item, (&'static str, &'static str)> {
        // Messages need not say what they are, and references neither.
        let usual = if self.role.is_none() && self.id.is_some() { Kind::Reference } else { Kind::Message };
        Ok(match self.kind.unwrap_or(usual) {
            Kind::Message => {
                let role = self.role.ok_or(("message", "role"))?;
                Item::Message(role.0, self.content.ok_or(("message", "content"))?.0)
            }
            Kind::Reasoning => Item::Reasoning(self.reasoning()),
            Kind::Call => {
                let arguments = self.arguments.ok_or(("function_call", "arguments"))?;
                let call = ToolCall {
                    id: self.call_id.ok_or(("function_call", "call_id"))?,
                    name: self.name.ok_or(("function_call", "name"))?,
                    arguments: arguments.value,
                };
                Item::Call(call, arguments.values)
            }
            Kind::Output => {
                let id = self.call_id.ok_or(("function_call_output", "call_id"))?;
                Item::Output(id, self.output.ok_or(("function_call_output", "output"))?.0)
            }
            Kind::Reference => Item::Reference(self.id.ok_or(("item_reference", "id"))?),
        })
    }

    /// The reasoning itself, else what this server put in its place, else its summary.
    fn reasoning(self) -> String {
        let plain = self.encrypted_content.as_deref().and_then(|content| content.strip_prefix(PLAIN));
        let texts = [self.content.map(|content| content.0), plain.map(str::to_owned), self.summary.map(|text| text.0)];
        texts.into_iter().flatten().find(|text| !text.is_empty()).unwrap_or_default()
    }
}

/// A text as a string, or as parts, which are joined.
#[derive(Debug, Default)]
pub(crate) struct Texts(String);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer)
    }
}

impl TextOrList for Texts {
    const EXPECTED: &'static str = "a string or a list of parts {\"type\": \"input_text\", \"text\": …}";

    fn text(text: &str) -> Self {
        Self(text.to_owned())
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut text = String::new();
        while let Some(part) = list.next_element::<Part>()? {
            text += &part.0;
        }
        Ok(Self(text))
    }
}

/// A part's text.
#[derive(Debug)]
pub(crate) struct Part(String);

object! {
    /// A part of a text.
    pub(crate) struct PartFields {
        kind as "type": PartKind = required,
        text: String,
        refusal: String,
        /// Places that the text was taken from, and probabilities of its tokens.
        _annotations as "annotations": IgnoredAny,
        _logprobs as "logprobs": IgnoredAny,
        /// Says where a prefix may end; here all share what they have in common.
        _cache as "prompt_cache_breakpoint": IgnoredAny,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum PartKind {
    Text,
    Refusal,
}

impl<'de> Deserialize<'de> for PartKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |kind| match kind {
            "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" => Ok(Self::Text),
            "refusal" => Ok(Self::Refusal),
            "input_image" | "input_file" | "input_audio" => {
                Err(format!("is {kind:?}: this server takes text only, no images, files or sound"))
            }
            other => Err(format!("is {:?}; this server takes input_text, output_text and refusal", shorten(other))),
        })
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let part = PartFields::deserialize(deserializer)?;
        let (text, name) = match part.kind {
            PartKind::Text => (part.text, "text"),
            PartKind::Refusal => (part.refusal, "refusal"),
        };
        text.map(Self).ok_or_else(|| D::Error::custom(format!("has no {name}")))
    }
}

/// Messages as a model sees them, to which items are added: what an assistant reasoned, said and called is one message.
#[derive(Debug, Default)]
pub(crate) struct Messages(pub Vec<Message>);

impl Messages {
    /// The whole conversation up to a response that is kept, its answer included.
    pub(super) fn after(stored: &Stored) -> Self {
        let mut messages = Self(stored.conversation.clone());
        output(stored).into_iter().for_each(|(_, item)| messages.push(item));
        messages
    }

    /// Takes the next item, whose references have been resolved.
    pub(super) fn push(&mut self, item: Item) {
        match item {
            Item::Message(Role::Assistant, text) => {
                let message = self.assistant(|last| last.content.is_empty() && last.calls.is_empty());
                message.content = text;
            }
            Item::Message(role, text) => self.0.push(Message::new(role, text)),
            Item::Reasoning(text) if text.is_empty() => {}
            Item::Reasoning(text) => {
                let message = self.assistant(|last| last.content.is_empty() && last.calls.is_empty());
                *message.reasoning.get_or_insert_default() += &text;
            }
            Item::Call(call, _) => self.assistant(|_| true).calls.push(call),
            Item::Output(call_id, text) => {
                self.0.push(Message { call_id: Some(call_id), ..Message::new(Role::Tool, text) });
            }
            Item::Reference(_) => {}
        }
    }

    /// The assistant's message that goes on: the last one, if `takes` says so, else a new one.
    fn assistant(&mut self, takes: impl Fn(&Message) -> bool) -> &mut Message {
        let open = self.0.last().is_some_and(|last| last.role == Role::Assistant && takes(last));
        if !open {
            self.0.push(Message::new(Role::Assistant, ""));
        }
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

/// Items of a kept answer with their ids, read as a client's are: the same prompt comes of them whoever keeps them.
fn output(stored: &Stored) -> Vec<(String, Item)> {
    let response: Value = serde_json::from_str(&stored.json).unwrap_or_default();
    let items = response["output"].as_array().into_iter().flatten();
    let item = |item: &Value| Some((item["id"].as_str()?.to_owned(), parse_within(&item.to_string()).ok()?));
    items.filter_map(item).collect()
}

/// An item of a kept answer, by the item's id, which tells the response's.
pub(super) fn kept_item(store: &Store, id: &str) -> Option<Item> {
    let (response, _) = id.split_once('_')?.1.rsplit_once('_')?;
    let stored = store.find(&format!("resp_{response}")).ok()?;
    output(&stored).into_iter().find(|(of, _)| of == id).map(|(_, item)| item)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(json: &str) -> Vec<Message> {
        let items: Items = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"));
        let mut messages = Messages::default();
        items.0.into_iter().for_each(|item| messages.push(item));
        messages.0
    }

    #[test]
    fn what_an_assistant_reasons_says_and_calls_is_one_message() {
        let call = |id: &str| {
            format!(r#"{{"type": "function_call", "call_id": "{id}", "name": "f", "arguments": "{{\"a\": 1}}"}}"#)
        };
        let messages = messages(&format!(
            r#"[{{"role": "user", "content": [{{"type": "input_text", "text": "a"}}, {{"type": "input_text", "text": "b"}}]}},
                {{"type": "reasoning", "id": "rs_1", "summary": [], "content": [{{"type": "reasoning_text", "text": "hm"}}]}},
                {{"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                  "content": [{{"type": "output_text", "text": "c", "annotations": [], "logprobs": []}}]}},
                {}, {},
                {{"type": "function_call_output", "call_id": "x", "output": "7"}},
                {{"type": "function_call_output", "call_id": "y", "output": [{{"type": "input_text", "text": "8"}}]}},
                {{"role": "assistant", "content": "d"}}, {{"role": "assistant", "content": "e"}}]"#,
            call("x"),
            call("y")
        ));
        let told: Vec<(&str, &str, Option<&str>, usize)> = messages
            .iter()
            .map(|m| (m.role.as_str(), m.content.as_str(), m.reasoning.as_deref(), m.calls.len()))
            .collect();
        assert_eq!(
            told,
            [
                ("user", "ab", None, 0),
                ("assistant", "c", Some("hm"), 2),
                ("tool", "7", None, 0),
                ("tool", "8", None, 0),
                ("assistant", "d", None, 0),
                ("assistant", "e", None, 0),
            ]
        );
        assert_eq!((&messages[1].calls[1].id, messages[3].call_id.as_deref()), (&"y".to_owned(), Some("y")));
    }

    #[test]
    fn reasoning_is_found_where_a_client_left_it() {
        let of = |fields: &str| {
            let said = r#"{"role": "assistant", "content": "x"}"#;
            messages(&format!(r#"[{{"type": "reasoning", "id": "rs", {fields}}}, {said}]"#))[0].reasoning.clone()
        };
        let summary = r#""summary": [{"type": "summary_text", "text": "short"}]"#;
        let own = format!(r#""encrypted_content": "{PLAIN}whole""#);
        assert_eq!(of(summary), Some("short".into()));
        assert_eq!(of(&format!("{summary}, {own}")), Some("whole".into()));
        let content = r#""content": [{"type": "reasoning_text", "text": "itself"}]"#;
        assert_eq!(of(&format!("{summary}, {own}, {content}")), Some("itself".into()));
        assert_eq!(of(r#""summary": [], "encrypted_content": "gAAAA""#), None, "another's");
    }

    #[test]
    fn what_is_missing_is_named() {
        for (json, message) in [
            (r#"[{"content": "x"}]"#, "is a message but has no role"),
            (r#"[{"role": "user"}]"#, "is a message but has no content"),
            (r#"[{"type": "function_call", "call_id": "a", "arguments": "{}"}]"#, "has no name"),
            (r#"[{"type": "function_call_output", "output": "a"}]"#, "has no call_id"),
            (r#"[{"type": "item_reference"}]"#, "has no id"),
            (r#"[{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]"#, "no images"),
            (r#"[{"type": "web_search_call"}]"#, "this server takes message"),
        ] {
            let error = serde_json::from_str::<Items>(json).unwrap_err().to_string();
            assert!(error.contains(message), "{json}: {error}");
        }
    }
}
