//! Tools of a request, and the calls that it wants.

use crate::error::{ApiError, shorten};
use crate::request::object::{object, word};
use crate::request::parse_within;
use crate::request::tools::{Entry, Function, MAX_TOOLS, Parameters, ToolName, ToolPaths, Tools, Wish};
use serde::Deserialize as Derive;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny};
use serde_json::value::RawValue;
use std::collections::HashSet;

const PATHS: ToolPaths = ToolPaths {
    name: |i| format!("tools[{i}].name"),
    choice: "tool_choice",
    named: "tool_choice.name",
    allowed: "tool_choice",
};

/// An entry of `tools`.
#[derive(Debug)]
pub(crate) enum Definition {
    /// A tool that the client defines and runs.
    Custom(CustomTool),
    /// A tool whose definition only Anthropic's models know, or that Anthropic itself runs: its type.
    Foreign(String),
}

impl Entry for Definition {
    const MOST: usize = MAX_TOOLS;

    fn values(&self) -> usize {
        match self {
            Self::Custom(tool) => tool.input_schema.0.values,
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
        match kind.filter(|kind| kind != "custom") {
            Some(kind) => Ok(Self::Foreign(kind)),
            None => parse_within(text).map(Self::Custom).map_err(D::Error::custom),
        }
    }
}

object! {
    /// A tool of the client.
    pub(crate) struct CustomTool {
        _kind as "type": String,
        name: ToolName = required,
        description: String,
        input_schema: Parameters = required,
        strict: bool,
        _cache as "cache_control": IgnoredAny,
        /// Arguments are always sent as they come.
        _eager as "eager_input_streaming": bool,
        /// Every tool is shown to the model from the beginning.
        _defer as "defer_loading": bool,
        _callers as "allowed_callers": Callers,
    }
}

/// `allowed_callers`, of which the model has to be one: there is no other.
#[derive(Debug)]
pub(crate) struct Callers;

impl<'de> Deserialize<'de> for Callers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let callers = Vec::<String>::deserialize(deserializer)?;
        if callers.is_empty() || callers.iter().any(|caller| caller == "direct") {
            return Ok(Self);
        }
        Err(D::Error::custom("does not have \"direct\": here only the model itself calls tools"))
    }
}

object! {
    /// `tool_choice`
    pub(crate) struct Choice {
        kind as "type": ChoiceKind = required,
        name: String,
        disable_parallel_tool_use: bool,
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum ChoiceKind {
    Auto,
    Any,
    Tool,
    None,
}

impl<'de> Deserialize<'de> for ChoiceKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |kind| match kind {
            "auto" => Ok(Self::Auto),
            "any" => Ok(Self::Any),
            "tool" => Ok(Self::Tool),
            "none" => Ok(Self::None),
            other => Err(format!("is {:?}, which is none of auto, any, tool and none", shorten(other))),
        })
    }
}

/// The tools that the model is told of, and the types of those that it is not.
///
/// # Errors
/// 400 for two tools of one name, and for a choice that no tool can fulfill.
pub(super) fn agreed(definitions: Vec<Definition>, choice: Option<Choice>) -> Result<(Tools, Vec<String>), ApiError> {
    let (mut tools, mut foreign) = (Vec::new(), Vec::new());
    let mut names = HashSet::new();
    for (i, definition) in definitions.into_iter().enumerate() {
        match definition {
            Definition::Foreign(kind) => foreign.push(kind),
            Definition::Custom(tool) => {
                let name = &tool.name.0;
                if !names.insert(name.clone()) {
                    let path = (PATHS.name)(i);
                    return Err(ApiError::invalid(&path, format!("{path} is {name:?}, as an earlier tool's name is")));
                }
                let strict = tool.strict.unwrap_or(false);
                let parameters = Some(tool.input_schema);
                let function = Function { name: tool.name, description: tool.description, parameters, strict };
                tools.push(function.into_tool(i));
            }
        }
    }
    let parallel = choice.as_ref().and_then(|choice| choice.disable_parallel_tool_use).map(|disabled| !disabled);
    let wish = match choice.map(|choice| (choice.kind, choice.name)) {
        None | Some((ChoiceKind::Auto, _)) => Wish::Auto,
        Some((ChoiceKind::None, _)) => Wish::None,
        Some((ChoiceKind::Any, _)) => Wish::Required,
        Some((ChoiceKind::Tool, Some(name))) => Wish::Named(name),
        Some((ChoiceKind::Tool, None)) => {
            return Err(ApiError::invalid("tool_choice.name", "tool_choice has the type tool but no name"));
        }
    };
    Tools::agreed(tools, wish, parallel, &PATHS).map(|tools| (tools, foreign))
}
