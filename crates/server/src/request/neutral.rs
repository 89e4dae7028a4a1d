//! Fields that this server does not have: taken if they ask for nothing, refused otherwise.
//!
//! Clients write out every optional field of OpenAI's schema, and send back what they were sent. A value that changes nothing is
//! therefore no reason to refuse a request.

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Values besides null, `[]`, `{}`, `""`, `"auto"`, `"none"`, and false where nothing else stands here, that say what is so anyway.
pub(crate) const DEFAULTS: &[(&str, Plain)] = &[
    ("add_generation_prompt", Plain::True),
    // mlx-lm's name for none beside the model itself.
    ("draft_model", Plain::Word("default_model")),
    ("best_of", Plain::Number(1.0)),
    // Prefixes are shared either way, which no answer shows.
    ("cache_prompt", Plain::Either),
    ("detokenize", Plain::True),
    ("length_penalty", Plain::Number(1.0)),
    ("min_tokens", Plain::Number(0.0)),
    // Without a draft model there is nothing to draft.
    ("num_draft_tokens", Plain::AnyNumber),
    ("modalities", Plain::List("text")),
    // Where there are no tools there are no calls.
    ("parallel_tool_calls", Plain::Either),
    ("priority", Plain::Number(0.0)),
    ("service_tier", Plain::Word("default")),
    ("skip_special_tokens", Plain::True),
    // Special tokens do not appear in answers.
    ("spaces_between_special_tokens", Plain::Either),
    ("typical_p", Plain::Number(1.0)),
    ("verbosity", Plain::Word("medium")),
    ("xtc_probability", Plain::Number(0.0)),
    // A threshold of a choice that is never made.
    ("xtc_threshold", Plain::AnyNumber),
];

/// A default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Plain {
    /// False asks for something.
    True,
    /// Neither true nor false does.
    Either,
    Number(f64),
    AnyNumber,
    Word(&'static str),
    /// A list of this word alone.
    List(&'static str),
}

/// Refusal of a field of which nothing else is known.
pub(crate) const UNSUPPORTED: &str = "is not supported by this server; leave it out";

/// Refusal of an unsupported field, in words that follow its name.
fn refusal(field: &str) -> &'static str {
    match field {
        "tools" | "tool_choice" => "asks for tool calls, which are made in conversations only",
        "functions" => "is OpenAI's older way to define functions; send tools",
        "function_call" => "is OpenAI's older way to write calls; send tool_choice, or a message's tool_calls",
        "guided_decoding_backend" => "chooses among programs of another server; leave it out",
        "image_url" | "input_audio" | "file" | "video_url" | "audio" | "modalities" => {
            "asks for more than text, which is not supported by this server yet"
        }
        "draft_model" => "asks for a draft model, which is not supported by this server; leave it out",
        "adapters" => "asks for an adapter, which is not supported by this server; leave it out",
        "xtc_probability" => "asks for XTC sampling, which is not supported by this server; leave it out, or send 0",
        "role_mapping" => "asks for other names of roles, which are not supported by this server; leave it out",
        _ => UNSUPPORTED,
    }
}

/// Reads the value of an unsupported field of that name.
pub(crate) struct Neutral<'a>(pub &'a str);

impl Neutral<'_> {
    fn default(&self) -> Option<Plain> {
        DEFAULTS.iter().find(|(field, _)| *field == self.0).map(|(_, value)| *value)
    }

    fn only_if<E: Error>(&self, neutral: bool) -> Result<(), E> {
        if neutral { Ok(()) } else { Err(E::custom(refusal(self.0))) }
    }

    fn number<E: Error>(&self, value: f64) -> Result<(), E> {
        self.only_if(match self.default() {
            Some(Plain::Number(default)) => default == value,
            default => default == Some(Plain::AnyNumber),
        })
    }
}

impl<'de> DeserializeSeed<'de> for Neutral<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Neutral<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that asks for nothing")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.only_if(match self.default() {
            Some(Plain::True) => value,
            Some(Plain::Either) => true,
            _ => !value,
        })
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.number(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.number(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.number(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        let nothing = matches!(value, "" | "auto" | "none");
        self.only_if(nothing || matches!(self.default(), Some(Plain::Word(word)) if word == value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        match self.default() {
            Some(Plain::List(word)) => {
                while let Some(entry) = list.next_element::<String>()? {
                    self.only_if(entry == word)?;
                }
                Ok(())
            }
            _ => {
                let first = list.next_element_seed(Present)?;
                self.only_if(first.is_none())
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.only_if(map.next_key::<IgnoredAny>()?.is_none())
    }
}

/// Sees that there is a value; it must be refused then, for it is not read.
struct Present;

impl<'de> DeserializeSeed<'de> for Present {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        Ok(())
    }
}

/// Refuses whatever the value is.
pub(crate) struct Refusal(pub &'static str);

impl<'de> DeserializeSeed<'de> for Refusal {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        Err(D::Error::custom(self.0))
    }
}
