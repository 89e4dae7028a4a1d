//! Fields that chat and text completions share, each read into a valid value or refused.

use super::events::Usages;
use crate::error::ApiError;
use crate::request::object::{TextOrList, at_most, fields, object, text_or_list};
use crate::request::whole::{Whole, whole};
use mlx_serving_engine::MAX_ALTERNATIVES;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};
use std::fmt;

fields! {
    /// Fields of both routes beside the sampling parameters, with OpenAI's names and, beyond them, vLLM's.
    pub(crate) struct SharedFields {
        model: String,
        stream: bool,
        stream_options: StreamOptions,
        max_tokens: TokenLimit,
        stop: Stop,
        ignore_eos: bool,
        n: Choices,
        /// Begin and end tokens are put around the prompt.
        add_special_tokens: bool,
        /// Log-probabilities name tokens `token_id:N`.
        return_tokens_as_token_ids: bool,
        /// Log-probabilities of the prompt's tokens and of so many alternatives.
        prompt_logprobs: PromptAlternatives,
        /// Ids of the prompt's tokens and of the answer's.
        return_token_ids: bool,
        /// Goes to the log.
        user: String,
        /// OpenAI's newer name for `user`.
        safety_identifier: String,
        /// Says which requests begin alike; here all share what they have in common.
        prompt_cache_key: String,
    }
}

impl SharedFields {
    /// Answers to each prompt.
    pub(crate) fn choices(&self) -> usize {
        self.n.as_ref().map_or(1, |n| n.0)
    }

    /// An answer in chunks is asked for.
    pub(crate) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Ids of tokens are told.
    pub(crate) fn tells_ids(&self) -> bool {
        self.return_token_ids.unwrap_or(false)
    }

    /// Alternatives to report beside each token of the prompt, if its log-probabilities are asked for.
    pub(crate) fn prompt_alternatives(&self) -> Option<usize> {
        self.prompt_logprobs.as_ref().and_then(|asked| asked.0)
    }

    /// Chunks of a stream that say what it costs.
    ///
    /// # Errors
    /// 400 for options of a stream that is none.
    pub(crate) fn usages(&self) -> Result<Usages, ApiError> {
        let option = |of: fn(&StreamOptions) -> Option<bool>| self.stream_options.as_ref().and_then(of) == Some(true);
        let usages = Usages { last: option(|o| o.include_usage), each: option(|o| o.continuous_usage_stats) };
        if !self.streams() && (usages.last || usages.each) {
            return Err(ApiError::invalid("stream_options", "stream_options needs stream to be true"));
        }
        Ok(usages)
    }

    /// Tells the log whom the request is for.
    pub(crate) fn log(&self, model: &str, route: &str) {
        if let Some(user) = &self.user {
            tracing::debug!(user, model, "{route}");
        }
        if let Some(safety_identifier) = &self.safety_identifier {
            tracing::debug!(safety_identifier, model, "{route}");
        }
        if let Some(key) = &self.prompt_cache_key {
            tracing::debug!(key, model, "{route}: prefixes are shared whatever the key");
        }
    }
}

object! {
    /// `stream_options`
    pub(crate) struct StreamOptions {
        /// A last chunk has the usage.
        include_usage: bool,
        /// Every chunk has the usage so far.
        continuous_usage_stats: bool,
    }
}

/// `prompt_logprobs`; false asks for none.
#[derive(Debug)]
pub(crate) struct PromptAlternatives(Option<usize>);

impl<'de> Deserialize<'de> for PromptAlternatives {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrFalse;
        impl Visitor<'_> for NumberOrFalse {
            type Value = PromptAlternatives;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from 0 to {MAX_ALTERNATIVES}, or false")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<PromptAlternatives, E> {
                let within = usize::try_from(number).ok().filter(|&top| top <= MAX_ALTERNATIVES);
                let refusal = || E::custom(format!("is {number}; it is at most {MAX_ALTERNATIVES}"));
                within.map(|top| PromptAlternatives(Some(top))).ok_or_else(refusal)
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<PromptAlternatives, E> {
                match u64::try_from(whole(number)?) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::invalid_value(Unexpected::Float(number), &self)),
                }
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<PromptAlternatives, E> {
                if value {
                    return Err(E::invalid_type(Unexpected::Bool(true), &self));
                }
                Ok(PromptAlternatives(None))
            }
        }
        deserializer.deserialize_any(NumberOrFalse)
    }
}

/// `max_tokens` and its other names: tokens of an answer at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TokenLimit(pub usize);

impl<'de> Deserialize<'de> for TokenLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Whole(limit) = Whole::deserialize(deserializer)?;
        usize::try_from(limit).map(Self).map_err(|_| D::Error::custom(format!("is {limit}; it cannot be negative")))
    }
}

/// Answers to one prompt at most.
const MAX_CHOICES: usize = 16;

/// `n`: answers to each prompt.
#[derive(Debug)]
pub(crate) struct Choices(usize);

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Whole(n) = Whole::deserialize(deserializer)?;
        let within = usize::try_from(n).ok().filter(|n| (1..=MAX_CHOICES).contains(n));
        within.map(Self).ok_or_else(|| D::Error::custom(format!("is {n}; it must be 1 to {MAX_CHOICES}")))
    }
}

/// Stop strings of a request at most: OpenAI takes 4, others any number, and each costs time at every token.
const MAX_STOPS: usize = 64;

/// `stop`: a string or several.
#[derive(Debug, Default)]
pub(crate) struct Stop(pub Vec<String>);

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stop: Self = text_or_list(deserializer)?;
        if stop.0.iter().any(String::is_empty) {
            return Err(D::Error::custom("has an empty string, at which every answer would end"));
        }
        Ok(stop)
    }
}

impl TextOrList for Stop {
    const EXPECTED: &'static str = "a string or a list of strings";

    /// The lone empty string asks for nothing.
    fn text(text: &str) -> Self {
        Self(if text.is_empty() { Vec::new() } else { vec![text.to_owned()] })
    }

    fn list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        at_most(MAX_STOPS, list, Vec::new()).map(Self)
    }
}
