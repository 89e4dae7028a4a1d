//! `tools` and `tool_choice` of chats.

use super::messages::FunctionKind;
use crate::error::shorten;
use crate::request::object::{at_most, object, word};
use crate::request::tools::{Entry, Function, List, MAX_TOOLS, Parameters, ToolName, ToolPaths, Wish};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Names of the fields about tools.
pub(crate) const PATHS: ToolPaths = ToolPaths {
    name: |i| format!("tools[{i}].function.name"),
    choice: "tool_choice",
    named: "tool_choice.function.name",
    allowed: "tool_choice.allowed_tools.tools",
};

/// `tools`
pub(crate) type Definitions = List<Definition>;

object! {
    /// One of the tools.
    pub(crate) struct Definition {
        _kind as "type": FunctionKind,
        function: FunctionFields = required,
    }
}

object! {
    /// A function that the model may call.
    pub(crate) struct FunctionFields {
        name: ToolName = required,
        description: String,
        parameters: Parameters,
        strict: bool,
    }
}

impl Entry for Definition {
    const MOST: usize = MAX_TOOLS;

    fn values(&self) -> usize {
        self.function.parameters.as_ref().map_or(0, |schema| schema.0.values)
    }
}

impl Definition {
    /// The function in no dialect.
    pub(crate) fn into_function(self) -> Function {
        let FunctionFields { name, description, parameters, strict } = self.function;
        Function { name, description, parameters, strict: strict.unwrap_or(false) }
    }
}

/// `tool_choice`: a word, or an object that names a function or some.
#[derive(Debug)]
pub(crate) struct Choice(pub Wish);

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrObject;
        impl<'de> Visitor<'de> for WordOrObject {
            type Value = Choice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word, or an object that names a function")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Choice, E> {
                let wish = match text {
                    // The empty word asks for nothing.
                    "auto" | "" => Wish::Auto,
                    "none" => Wish::None,
                    "required" => Wish::Required,
                    _ => {
                        let shown = shorten(text);
                        return Err(E::custom(format!(
                            "is {shown:?}, which is none of auto, none and required; an object names a function"
                        )));
                    }
                };
                Ok(Choice(wish))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Choice, A::Error> {
                ChoiceObject::deserialize(MapAccessDeserializer::new(map))?.wish().map(Choice)
            }
        }
        deserializer.deserialize_any(WordOrObject)
    }
}

object! {
    /// `tool_choice` as an object.
    struct ChoiceObject {
        kind as "type": ChoiceKind,
        function: NamedFunction,
        allowed_tools: AllowedTools,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum ChoiceKind {
    Auto,
    None,
    Required,
    Function,
    AllowedTools,
}

impl<'de> Deserialize<'de> for ChoiceKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |kind| match kind {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            "required" => Ok(Self::Required),
            "function" => Ok(Self::Function),
            "allowed_tools" => Ok(Self::AllowedTools),
            other => {
                let shown = shorten(other);
                Err(format!("is {shown:?}, which is none of function, allowed_tools, auto, none and required"))
            }
        })
    }
}

impl ChoiceObject {
    fn wish<E: Error>(self) -> Result<Wish, E> {
        let wish = match (self.kind, self.function, self.allowed_tools) {
            (Some(ChoiceKind::Function), Some(function), None) => Wish::Named(function.name.0),
            (Some(ChoiceKind::Function), None, None) => return Err(E::missing_field("function")),
            (Some(ChoiceKind::AllowedTools), None, Some(allowed)) => Wish::Allowed {
                required: allowed.mode == Mode::Required,
                names: allowed.tools.0.into_iter().map(|tool| tool.function.name.0).collect(),
            },
            (Some(ChoiceKind::AllowedTools), None, None) => return Err(E::missing_field("allowed_tools")),
            (None | Some(ChoiceKind::Auto), None, None) => Wish::Auto,
            (Some(ChoiceKind::None), None, None) => Wish::None,
            (Some(ChoiceKind::Required), None, None) => Wish::Required,
            (None, ..) => return Err(E::missing_field("type")),
            (Some(_), ..) => return Err(E::custom("has a field that is another type's")),
        };
        Ok(wish)
    }
}

object! {
    /// The function that is to be called.
    struct NamedFunction {
        name: ToolName = required,
    }
}

object! {
    /// The tools that may be called.
    struct AllowedTools {
        mode: Mode = required,
        tools: Allowed = required,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Auto,
    Required,
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |mode| match mode {
            "auto" => Ok(Self::Auto),
            "required" => Ok(Self::Required),
            _ => Err("is neither auto nor required".into()),
        })
    }
}

/// A list of tools that may be called.
#[derive(Debug)]
struct Allowed(Vec<AllowedTool>);

object! {
    /// One of them.
    struct AllowedTool {
        _kind as "type": FunctionKind,
        function: NamedFunction = required,
    }
}

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Allowed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tools")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Allowed, A::Error> {
                at_most(MAX_TOOLS, list, Vec::new()).map(Allowed)
            }
        }
        deserializer.deserialize_seq(Entries)
    }
}
