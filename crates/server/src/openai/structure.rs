//! Fields that say which form an answer has.

use crate::error::ApiError;
use crate::request::bounded::Bounded;
use crate::request::format::FormatKind;
use crate::request::object::{at_most, fields, object, word};
use mlx_serving_runtime::Structure;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;

/// Bytes of an expression or a grammar at most.
const MAX_PATTERN: usize = 64 << 10;
/// Texts of a choice at most.
const MAX_TEXTS: usize = 1024;

fields! {
    /// Forms of an answer, with OpenAI's name and, beyond it, vLLM's.
    pub(crate) struct StructureFields {
        response_format: ResponseFormat,
        structured_outputs: StructuredOutputs,
        guided_json: Schema,
        guided_regex: Pattern,
        guided_choice: Texts,
        guided_grammar: Pattern,
    }
}

/// A form, and the client's name of the field that asks for it.
pub(crate) type Asked = (Structure, &'static str);

impl StructureFields {
    /// The form that is asked for.
    ///
    /// # Errors
    /// 400 for a second one, and for what a form lacks.
    pub(crate) fn structure(self) -> Result<Option<Asked>, ApiError> {
        let format = self.response_format.map(ResponseFormat::structure).transpose()?.flatten();
        let outputs = self.structured_outputs.into_iter().flat_map(StructuredOutputs::structures);
        let guided = [
            (self.guided_json.map(Schema::into_structure), "guided_json"),
            (self.guided_regex.and_then(|pattern| pattern.0).map(Structure::Regex), "guided_regex"),
            (self.guided_choice.and_then(Texts::into_structure), "guided_choice"),
            (self.guided_grammar.and_then(|pattern| pattern.0).map(Structure::Lark), "guided_grammar"),
        ];
        let guided = guided.into_iter().filter_map(|(structure, field)| Some((structure?, field)));
        let mut asked = format.into_iter().chain(outputs).chain(guided);
        let first = asked.next();
        match (&first, asked.next()) {
            (Some((_, one)), Some((_, other))) => Err(ApiError::invalid(
                other,
                format!("{other} asks for a form of the answer beside {one}; send one of them"),
            )),
            _ => Ok(first),
        }
    }
}

object! {
    /// `response_format`
    pub(crate) struct ResponseFormat {
        kind as "type": FormatKind,
        json_schema: NamedSchema,
    }
}

object! {
    /// `response_format.json_schema`
    pub(crate) struct NamedSchema {
        /// What else it says is for models that are told of it.
        _name as "name": Box<str>,
        _description as "description": Box<str>,
        schema: Bounded,
        /// A schema is always held to.
        _strict as "strict": bool,
    }
}

impl ResponseFormat {
    fn structure(self) -> Result<Option<Asked>, ApiError> {
        match (self.kind.unwrap_or(FormatKind::Text), self.json_schema) {
            (FormatKind::Text, None) => Ok(None),
            (FormatKind::Object, None) => Ok(Some((Structure::Object, "response_format"))),
            (FormatKind::Schema, Some(named)) => Ok(Some(match named.schema {
                Some(schema) => (Structure::Schema(Value::Object(schema.object)), "response_format.json_schema.schema"),
                None => (Structure::Object, "response_format"),
            })),
            (FormatKind::Schema, None) => {
                let field = "response_format.json_schema";
                Err(ApiError::invalid(field, format!("{field} is missing")))
            }
            (_, Some(_)) => {
                let field = "response_format.json_schema";
                Err(ApiError::invalid(field, format!("{field} needs response_format.type to be \"json_schema\"")))
            }
        }
    }
}

object! {
    /// `structured_outputs`
    pub(crate) struct StructuredOutputs {
        json: Schema,
        regex: Pattern,
        choice: Texts,
        grammar: Pattern,
        json_object: bool,
    }
}

impl StructuredOutputs {
    fn structures(self) -> impl Iterator<Item = Asked> {
        let asked = [
            (self.json.map(Schema::into_structure), "structured_outputs.json"),
            (self.regex.and_then(|pattern| pattern.0).map(Structure::Regex), "structured_outputs.regex"),
            (self.choice.and_then(Texts::into_structure), "structured_outputs.choice"),
            (self.grammar.and_then(|pattern| pattern.0).map(Structure::Lark), "structured_outputs.grammar"),
            ((self.json_object == Some(true)).then_some(Structure::Object), "structured_outputs.json_object"),
        ];
        asked.into_iter().filter_map(|(structure, field)| Some((structure?, field)))
    }
}

/// A JSON schema: an object, or a string that holds one.
#[derive(Debug)]
pub(crate) struct Schema(Bounded);

impl Schema {
    fn into_structure(self) -> Structure {
        Structure::Schema(Value::Object(self.0.object))
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?.get();
        let quoted: Option<String> = match raw.starts_with('"') {
            true => Some(serde_json::from_str(raw).map_err(|_| D::Error::custom("is not a text of whole characters"))?),
            false => None,
        };
        Bounded::parse(quoted.as_deref().unwrap_or(raw)).map(Self).map_err(D::Error::custom)
    }
}

/// An expression or a grammar; an empty one asks for nothing.
#[derive(Debug)]
pub(crate) struct Pattern(Option<String>);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |text| match text.len() {
            0 => Ok(Self(None)),
            bytes if bytes > MAX_PATTERN => Err(format!("has {bytes} bytes; at most {MAX_PATTERN} are taken")),
            _ => Ok(Self(Some(text.to_owned()))),
        })
    }
}

/// Texts of which the answer is one; an empty list asks for nothing.
#[derive(Debug)]
pub(crate) struct Texts(Vec<String>);

impl Texts {
    fn into_structure(self) -> Option<Structure> {
        (!self.0.is_empty()).then_some(Structure::Choice(self.0))
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of strings")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Texts, A::Error> {
                at_most(MAX_TEXTS, list, Vec::new()).map(Texts)
            }
        }
        deserializer.deserialize_seq(List)
    }
}
