//! Kinds of form that an answer is asked for in, in the words of OpenAI's dialects.

use super::object::word;
use crate::error::shorten;
use serde::de::{Deserialize, Deserializer};

/// `type` of a form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum FormatKind {
    Text,
    Object,
    Schema,
}

impl<'de> Deserialize<'de> for FormatKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |kind| match kind {
            "text" => Ok(Self::Text),
            "json_object" => Ok(Self::Object),
            "json_schema" => Ok(Self::Schema),
            other => Err(format!("is {:?}, which is none of text, json_object and json_schema", shorten(other))),
        })
    }
}
