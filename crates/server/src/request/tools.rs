//! Tools that a client defines, the calls that it wants, and those that a conversation tells of, in no dialect.

use super::bounded::{self, Bounded};
use super::object::word;
use crate::error::{ApiError, shorten};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use mlx_serving_runtime::{Tool, ToolChoice};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

/// Tools of one request at most.
pub(crate) const MAX_TOOLS: usize = 512;
/// Calls of one message at most.
pub(crate) const MAX_CALLS: usize = 256;
/// Types of ignored tools that an answer names at most.
const MAX_TOLD: usize = 16;
/// Characters of a tool's name at most.
const MAX_NAME: usize = 128;

/// Name of a tool: what every format of calls can write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToolName(pub String);

impl<'de> Deserialize<'de> for ToolName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |name| {
            let sane = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
            if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(sane) {
                return Ok(Self(name.to_owned()));
            }
            let shown = shorten(name);
            Err(format!("is {shown:?}; it has to be 1 to {MAX_NAME} letters, digits, and any of _ - . : /"))
        })
    }
}

/// JSON schema of a tool's arguments: an object's, whether or not it says so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parameters(pub Bounded);

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let schema = Bounded::deserialize(deserializer)?;
        let fits = match schema.object.get("type") {
            Some(Value::String(kind)) => kind == "object",
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
            None => true,
            Some(_) => false,
        };
        if fits {
            return Ok(Self(schema));
        }
        let kind = schema.object["type"].to_string();
        Err(D::Error::custom(format!(
            "has the type {}; arguments are an object, so it has to be \"object\"",
            shorten(&kind)
        )))
    }
}

/// A function that a client defines.
#[derive(Debug)]
pub(crate) struct Function {
    pub name: ToolName,
    pub description: Option<String>,
    /// Schema of its arguments; without one it has none.
    pub parameters: Option<Parameters>,
    /// Arguments are held to the schema.
    pub strict: bool,
}

impl Function {
    /// The tool of that index in a request, in the shape that templates read.
    pub(crate) fn into_tool(self, index: usize) -> Tool {
        let nothing = || Map::from_iter([("type".into(), "object".into()), ("properties".into(), json!({}))]);
        let parameters = Value::Object(self.parameters.map_or_else(nothing, |schema| schema.0.object));
        let mut function = Map::new();
        function.insert("name".into(), self.name.0.clone().into());
        if let Some(description) = self.description {
            function.insert("description".into(), description.into());
        }
        function.insert("parameters".into(), parameters.clone());
        let definition = json!({ "type": "function", "function": function });
        Tool { name: self.name.0, definition, parameters, strict: self.strict, index }
    }
}

/// An entry of a list that is bounded as a whole.
pub(crate) trait Entry {
    /// Entries of a list at most.
    const MOST: usize;

    /// Values of JSON in it.
    fn values(&self) -> usize;
}

/// A list of definitions or calls, in all of whose JSON there are at most [`bounded::MAX_VALUES`] values.
#[derive(Debug)]
pub(crate) struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de> + Entry> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Entry> Visitor<'de> for Entries<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<T>, A::Error> {
                let (mut entries, mut values) = (Vec::new(), 0);
                while let Some(entry) = list.next_element::<T>()? {
                    values += entry.values();
                    if values > bounded::MAX_VALUES {
                        let most = bounded::MAX_VALUES;
                        return Err(A::Error::custom(format!(
                            "has more than {most} values of JSON, which is the limit"
                        )));
                    }
                    if entries.len() >= T::MOST {
                        return Err(A::Error::custom(format!("has more than {} entries, which is the limit", T::MOST)));
                    }
                    entries.push(entry);
                }
                Ok(List(entries))
            }
        }
        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

/// Arguments of a call in a conversation: a text that holds a JSON object, or what a model wrote in its place.
#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    /// The object, or the text where it is none.
    pub value: Value,
    /// Values in it, at most.
    pub values: usize,
}

impl Arguments {
    /// Those of a text.
    ///
    /// # Errors
    /// It is too long or holds too many values, in words that follow its name.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self { value: json!({}), values: 1 });
        }
        let values = bounded::check(text)?;
        Ok(match Bounded::parse(text) {
            Ok(bounded) => Self { value: Value::Object(bounded.object), values },
            Err(_) => Self { value: text.into(), values: 1 },
        })
    }
}

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string that holds a JSON object", Self::parse)
    }
}

/// Calls that a client wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Those that the model makes.
    #[default]
    Auto,
    /// None.
    None,
    /// One at least.
    Required,
    /// One of this tool.
    Named(String),
    /// Those of some tools, or one of them at least.
    Allowed { names: Vec<String>, required: bool },
}

/// Tools of a request and the calls that its answer may make.
#[derive(Debug)]
pub(crate) struct Tools {
    pub tools: Vec<Tool>,
    pub choice: ToolChoice,
    pub parallel: bool,
}

/// A dialect's names of the fields about tools.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToolPaths {
    /// Name of the tool of that index, such as `tools[0].function.name`.
    pub name: fn(usize) -> String,
    /// The wish, such as `tool_choice`.
    pub choice: &'static str,
    /// The tool that it names, such as `tool_choice.function.name`.
    pub named: &'static str,
    /// The tools that it allows, such as `tool_choice.allowed_tools.tools`.
    pub allowed: &'static str,
}

impl Tools {
    /// Tools and a wish that agree. A model is told only of tools that it may call.
    ///
    /// # Errors
    /// 400 for two tools of one name, and for a wish that no tool can fulfill.
    pub(crate) fn agreed(
        mut tools: Vec<Tool>,
        wish: Wish,
        parallel: Option<bool>,
        paths: &ToolPaths,
    ) -> Result<Self, ApiError> {
        let mut names = HashSet::new();
        if let Some(i) = tools.iter().position(|tool| !names.insert(tool.name.as_str())) {
            let (path, name) = ((paths.name)(i), &tools[i].name);
            return Err(ApiError::invalid(&path, format!("{path} is {name:?}, as an earlier tool's name is")));
        }
        let unknown = |path: &str, name: &str| {
            ApiError::invalid(path, format!("{path} names {:?}, which is none of the request's tools", shorten(name)))
        };
        if tools.is_empty() && !matches!(wish, Wish::Auto | Wish::None) {
            let path = paths.choice;
            return Err(ApiError::invalid(path, format!("{path} asks for calls, but the request has no tools")));
        }
        let choice = match wish {
            Wish::Auto => ToolChoice::Auto,
            Wish::None => ToolChoice::None,
            Wish::Required => ToolChoice::Required,
            Wish::Named(name) if names.contains(name.as_str()) => ToolChoice::Named(name),
            Wish::Named(name) => return Err(unknown(paths.named, &name)),
            Wish::Allowed { names: allowed, required } => {
                if let Some(name) = allowed.iter().find(|name| !names.contains(name.as_str())) {
                    return Err(unknown(paths.allowed, name));
                }
                tools.retain(|tool| allowed.contains(&tool.name));
                match (required, tools.is_empty()) {
                    (true, true) => {
                        let path = paths.choice;
                        return Err(ApiError::invalid(path, format!("{path} asks for calls, but allows no tool")));
                    }
                    (false, true) => ToolChoice::None,
                    (true, false) => ToolChoice::Required,
                    (false, false) => ToolChoice::Auto,
                }
            }
        };
        Ok(Self { tools, choice, parallel: parallel.unwrap_or(true) })
    }
}

/// Header of an answer that names the types of tools of which the model was not told.
pub(crate) const IGNORED_TOOLS: HeaderName = HeaderName::from_static("x-ignored-tools");

/// Says in an answer's head, and in the log, of which types of tools the model was not told: those that nobody here can run or define.
pub(crate) fn tell_ignored(response: &mut Response, kinds: &[String]) {
    if kinds.is_empty() {
        return;
    }
    let kinds: Vec<Cow<'_, str>> = kinds.iter().take(MAX_TOLD).map(|kind| shorten(kind)).collect();
    let kinds = kinds.join(", ");
    tracing::debug!(kinds, "tools are ignored");
    if let Ok(kinds) = HeaderValue::from_str(&kinds) {
        response.headers_mut().insert(IGNORED_TOOLS, kinds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: ToolPaths = ToolPaths {
        name: |i| format!("tools[{i}].name"),
        choice: "choice",
        named: "choice.name",
        allowed: "choice.of",
    };

    fn tools(names: &[&str]) -> Vec<Tool> {
        let function = |name: &&str| Function {
            name: ToolName((*name).into()),
            description: None,
            parameters: None,
            strict: false,
        };
        names.iter().enumerate().map(|(i, name)| function(name).into_tool(i)).collect()
    }

    fn agreed(names: &[&str], wish: Wish) -> Result<(Vec<String>, ToolChoice), String> {
        let agreed = Tools::agreed(tools(names), wish, None, &PATHS);
        agreed
            .map(|tools| (tools.tools.into_iter().map(|tool| tool.name).collect(), tools.choice))
            .map_err(|error| error.to_json()["error"]["param"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_tool_has_the_shape_that_templates_read() {
        let parameters = Bounded::parse(r#"{"type": "object", "properties": {"b": {}, "a": {}}}"#).unwrap();
        let function = Function {
            name: ToolName("f".into()),
            description: Some("does f".into()),
            parameters: Some(Parameters(parameters)),
            strict: true,
        };
        let tool = function.into_tool(0);
        assert_eq!(
            tool.definition.to_string(),
            r#"{"type":"function","function":{"name":"f","description":"does f","parameters":{"type":"object","properties":{"b":{},"a":{}}}}}"#
        );
        assert!(tool.strict && tool.parameters == tool.definition["function"]["parameters"]);
        let bare = &tools(&["g"])[0];
        assert_eq!(bare.parameters, json!({ "type": "object", "properties": {} }));
    }

    #[test]
    fn a_wish_that_no_tool_can_fulfill_is_refused_by_name() {
        let named = |name: &str| Wish::Named(name.into());
        let allowed = |names: &[&str], required| Wish::Allowed {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            required,
        };
        let both = || vec!["f".to_owned(), "g".to_owned()];
        assert_eq!(agreed(&["f", "g"], Wish::Auto), Ok((both(), ToolChoice::Auto)));
        assert_eq!(agreed(&["f", "g"], named("g")), Ok((both(), ToolChoice::Named("g".into()))));
        assert_eq!(agreed(&["f", "g"], allowed(&["g"], true)), Ok((vec!["g".into()], ToolChoice::Required)));
        assert_eq!(agreed(&["f", "g"], allowed(&[], false)), Ok((vec![], ToolChoice::None)));
        assert_eq!(agreed(&[], Wish::None), Ok((vec![], ToolChoice::None)));
        for (names, wish, param) in [
            (vec!["f", "f"], Wish::Auto, "tools[1].name"),
            (vec![], Wish::Required, "choice"),
            (vec![], named("f"), "choice"),
            (vec!["f"], named("g"), "choice.name"),
            (vec!["f"], allowed(&["f", "g"], false), "choice.of"),
            (vec!["f"], allowed(&[], true), "choice"),
        ] {
            assert_eq!(agreed(&names, wish), Err(param.into()));
        }
    }

    #[test]
    fn arguments_are_an_object_or_the_text_that_a_model_wrote() {
        let value = |text: &str| Arguments::parse(text).unwrap().value;
        assert_eq!(value(r#"{"b": 1, "a": [2]}"#).to_string(), r#"{"b":1,"a":[2]}"#);
        assert_eq!((value(""), value(" \n")), (json!({}), json!({})));
        for text in ["{\"a\": ", "[1]", "5", "null", "call me"] {
            assert_eq!(value(text), json!(text));
        }
        assert!(Arguments::parse(&format!("{{\"a\": [{}]}}", vec!["0"; 70_000].join(","))).is_err());
    }
}
