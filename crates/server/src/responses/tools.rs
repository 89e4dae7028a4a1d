//! Tools of a request, and the calls that it wants.

use crate::error::{ApiError, shorten};
use crate::request::object::{object, word};
use crate::request::parse_within;
use crate::request::tools::{Entry, Function, MAX_TOOLS, Parameters, ToolName, ToolPaths, Tools, Wish};
use mlx_serving_runtime::Tool;
use serde::Deserialize as Derive;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashSet;

const PATHS: ToolPaths = ToolPaths {
    name: |i| format!("tools[{i}].name"),
    choice: "tool_choice",
    named: "tool_choice.name",
    allowed: "tool_choice.tools",
};

/// An entry of `tools`.
#[derive(Debug)]
pub(crate) enum Definition {
    /// A function of the client.
    Function(FunctionTool),
    /// A tool that OpenAI runs or whose use only its models know: its type.
    Foreign(String),
}

impl Entry for Definition {
    const MOST: usize = MAX_TOOLS;

    fn values(&self) -> usize {
        match self {
            Self::Function(tool) => 1 + tool.parameters.as_ref().map_or(0, |schema| schema.0.values),
            Self::Foreign(_) => 1,
        }
    }
}

impl<'de> Deserialize<'de> for Definition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Name of the kind.
        #[derive(Derive)]
        struct Kind {
            #[serde(rename = "type", default)]
            kind: Option<String>,
        }
        let text = <&'de RawValue>::deserialize(deserializer)?.get();
        // Anything else about it is said when it is read as what it is.
        let kind = serde_json::from_str::<Kind>(text).ok().and_then(|kind| kind.kind);
        match kind.filter(|kind| kind != "function") {
            Some(kind) => Ok(Self::Foreign(kind)),
            None => parse_within(text).map(Self::Function).map_err(D::Error::custom),
        }
    }
}

object! {
    /// A function of the client.
    pub(crate) struct FunctionTool {
        _kind as "type": String = required,
        name: ToolName = required,
        description: String,
        parameters: Parameters,
        strict: bool,
        /// Every tool is shown to the model from the beginning.
        _defer as "defer_loading": bool,
        /// What a result looks like, which no template tells.
        _output as "output_schema": IgnoredAny,
    }
}

/// `tool_choice`
#[derive(Debug, Default)]
pub(crate) struct Choice(Wish);

object! {
    /// `tool_choice` where it is an object.
    pub(crate) struct ChoiceFields {
        kind as "type": ChoiceKind = required,
        name: String,
        mode: Mode,
        tools: Allowed,
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum ChoiceKind {
    Function,
    Allowed,
}

impl<'de> Deserialize<'de> for ChoiceKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |kind| match kind {
            "function" => Ok(Self::Function),
            "allowed_tools" => Ok(Self::Allowed),
            other => Err(format!("is {:?}; this server takes function and allowed_tools", shorten(other))),
        })
    }
}

/// `tool_choice.mode`: true where one call at least is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode(bool);

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |mode| match mode {
            "auto" => Ok(Self(false)),
            "required" => Ok(Self(true)),
            other => Err(format!("is {:?}, which is none of auto and required", shorten(other))),
        })
    }
}

/// `tool_choice.tools`: names of functions.
#[derive(Debug, Default)]
pub(crate) struct Allowed(Vec<String>);

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object! {
            /// An entry.
            struct Entry {
                _kind as "type": String,
                name: String = required,
            }
        }
        let entries = Vec::<Entry>::deserialize(deserializer)?;
        if entries.len() > MAX_TOOLS {
            return Err(D::Error::custom(format!("has more than {MAX_TOOLS} entries, which is the limit")));
        }
        Ok(Self(entries.into_iter().map(|entry| entry.name).collect()))
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&'de RawValue>::deserialize(deserializer)?.get();
        if text.starts_with('"') {
            let word: String = serde_json::from_str(text).map_err(D::Error::custom)?;
            return match word.as_str() {
                "auto" => Ok(Self(Wish::Auto)),
                "none" => Ok(Self(Wish::None)),
                "required" => Ok(Self(Wish::Required)),
                other => Err(D::Error::custom(format!(
                    "is {:?}, which is none of auto, none, required and an object",
                    shorten(other)
                ))),
            };
        }
        let fields: ChoiceFields = parse_within(text).map_err(D::Error::custom)?;
        match (fields.kind, fields.name) {
            (ChoiceKind::Function, Some(name)) => Ok(Self(Wish::Named(name))),
            (ChoiceKind::Function, None) => Err(D::Error::custom("has the type function but no name")),
            (ChoiceKind::Allowed, _) => {
                let required = fields.mode.is_some_and(|mode| mode.0);
                Ok(Self(Wish::Allowed { names: fields.tools.unwrap_or_default().0, required }))
            }
        }
    }
}

impl Choice {
    /// The choice as an answer repeats it: as it was sent.
    pub(super) fn repeated(&self) -> Value {
        let function = |name: &String| json!({ "type": "function", "name": name });
        match &self.0 {
            Wish::Auto => "auto".into(),
            Wish::None => "none".into(),
            Wish::Required => "required".into(),
            Wish::Named(name) => function(name),
            Wish::Allowed { names, required } => json!({
                "type": "allowed_tools", "mode": if *required { "required" } else { "auto" },
                "tools": names.iter().map(function).collect::<Vec<_>>(),
            }),
        }
    }
}

/// The tools that the model is told of, and the types of those that it is not.
///
/// # Errors
/// 400 for two tools of one name, and for a choice that no tool can fulfill.
pub(super) fn agreed(
    definitions: Vec<Definition>,
    choice: Choice,
    parallel: Option<bool>,
) -> Result<(Tools, Vec<String>), ApiError> {
    let (mut tools, mut foreign, mut names) = (Vec::new(), Vec::new(), HashSet::new());
    for (i, definition) in definitions.into_iter().enumerate() {
        match definition {
            Definition::Foreign(kind) => foreign.push(kind),
            Definition::Function(FunctionTool { name, description, parameters, strict, .. }) => {
                if !names.insert(name.0.clone()) {
                    let (path, name) = ((PATHS.name)(i), name.0);
                    return Err(ApiError::invalid(&path, format!("{path} is {name:?}, as an earlier tool's name is")));
                }
                let strict = strict.unwrap_or(false);
                tools.push(Function { name, description, parameters, strict }.into_tool(i));
            }
        }
    }
    Tools::agreed(tools, choice.0, parallel, &PATHS).map(|tools| (tools, foreign))
}

/// A tool as an answer repeats it.
pub(super) fn repeated(tool: &Tool) -> Value {
    let function = &tool.definition["function"];
    json!({
        "type": "function", "name": tool.name, "description": function["description"], "parameters": tool.parameters,
        "strict": tool.strict,
    })
}
