//! The parameters that chat and text completions share, parsed once into valid engine requests.

use crate::error::{ApiError, shorten};
use crate::object::{TextOrList, at_most, fields, object, text_or_list, word};
use mlx_serving_engine::{Request, Sampling};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

fields! {
    /// Fields of both routes, with OpenAI's names and, beyond them, vLLM's.
    pub(crate) struct Params {
        model: String,
        stream: bool,
        stream_options: StreamOptions,
        max_tokens: i64,
        temperature: f32,
        top_p: f32,
        top_k: i64,
        min_p: f32,
        repetition_penalty: f32,
        presence_penalty: f32,
        frequency_penalty: f32,
        seed: i64,
        logit_bias: LogitBias,
        stop: Stop,
        ignore_eos: bool,
        n: i64,
        /// Begin and end tokens are put around the prompt.
        add_special_tokens: bool,
        /// Log-probabilities name tokens `token_id:N`.
        return_tokens_as_token_ids: bool,
        /// Goes to the log.
        user: String,
        /// OpenAI's newer name for `user`.
        safety_identifier: String,
        /// Says which requests begin alike; here all share what they have in common.
        prompt_cache_key: String,
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

object! {
    /// `response_format`
    pub(crate) struct ResponseFormat {
        _kind as "type": PlainText,
    }
}

/// The only format so far.
#[derive(Debug)]
pub(crate) struct PlainText;

impl<'de> Deserialize<'de> for PlainText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |kind| match kind {
            "text" => Ok(PlainText),
            "json_object" | "json_schema" => {
                Err("asks for structured output, which is not supported by this server yet".into())
            }
            _ => Err("is not \"text\", the only format that is supported by this server".into()),
        })
    }
}

/// Answers to one prompt at most.
const MAX_CHOICES: i64 = 16;
/// OpenAI's limit.
const MAX_STOPS: usize = 4;
/// Entries that one slot of the engine's ring has for each sequence.
const MAX_BIASES: usize = 1024;

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

    fn text(text: &str) -> Self {
        Self(vec![text.to_owned()])
    }

    fn list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        at_most(MAX_STOPS, list, Vec::new()).map(Self)
    }
}

/// `logit_bias`: token ids to additions.
#[derive(Debug, Default, Clone)]
pub(crate) struct LogitBias(Vec<(u32, f32)>);

impl<'de> Deserialize<'de> for LogitBias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Biases;
        impl<'de> Visitor<'de> for Biases {
            type Value = Vec<(u32, f32)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of token ids and numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<(u32, f32)>, A::Error> {
                let mut biases: Vec<(u32, f32)> = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    let Ok(id) = key.parse() else {
                        return Err(A::Error::custom(format!("has the key {:?}; keys are token ids", shorten(&key))));
                    };
                    if biases.len() >= MAX_BIASES {
                        return Err(A::Error::custom(format!("has more than {MAX_BIASES} entries, the limit")));
                    }
                    if biases.iter().any(|(other, _)| *other == id) {
                        return Err(A::Error::custom(format!("has token {id} twice")));
                    }
                    biases.push((id, map.next_value()?));
                }
                Ok(biases)
            }
        }
        deserializer.deserialize_map(Biases).map(Self)
    }
}

/// Everything of a request but its prompt, checked.
#[derive(Debug)]
pub(crate) struct Plan {
    /// All of an engine's request but the prompt.
    request: Request,
    /// Choices for each prompt.
    pub n: usize,
}

impl Params {
    /// Checks what can be without a prompt. `defaults` come from the model's generation_config.json.
    ///
    /// # Errors
    /// 400 with the parameter at fault.
    pub(crate) fn plan(&self, defaults: &Sampling) -> Result<Plan, ApiError> {
        let n = self.n.unwrap_or(1);
        if !(1..=MAX_CHOICES).contains(&n) {
            return Err(ApiError::invalid("n", format!("n is {n}; it must be 1 to {MAX_CHOICES}")));
        }
        let top_k = match self.top_k {
            None => defaults.top_k,
            Some(-1) => 0,
            Some(k) => u32::try_from(k).map_err(|_| {
                ApiError::invalid("top_k", format!("top_k is {k}; it must be -1, for all tokens, to {}", u32::MAX))
            })?,
        };
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k,
            top_p: self.top_p.unwrap_or(defaults.top_p),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            seed: self.seed.map(|s| s as u64),
            logit_bias: self.logit_bias.clone().unwrap_or_default().0,
        };
        let request = Request {
            sampling,
            stop: self.stop.as_ref().map(|stop| stop.0.clone()).unwrap_or_default(),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            ..Request::default()
        };
        Ok(Plan { request, n: n as usize })
    }

    /// Whom the request is for, to the log.
    pub(crate) fn log(&self, model: &str, route: &str) {
        for user in [&self.user, &self.safety_identifier].into_iter().flatten() {
            tracing::debug!(user, model, "{route}");
        }
        if let Some(key) = &self.prompt_cache_key {
            tracing::debug!(key, model, "{route}: prefixes are shared whatever the key");
        }
    }
}

impl Plan {
    /// The plan with what a route has of its own.
    pub(crate) fn with(mut self, set: impl FnOnce(&mut Request)) -> Self {
        set(&mut self.request);
        self
    }

    /// The engine's requests for one prompt, one for each choice.
    pub(crate) fn requests(&self, prompt: Vec<u32>) -> Vec<Request> {
        let seed = self.request.sampling.seed;
        let request = |(i, prompt)| {
            let mut request = Request { prompt, ..self.request.clone() };
            request.sampling.seed = seed.map(|seed| seed.wrapping_add(i as u64));
            request
        };
        // The last one takes the prompt itself.
        std::iter::repeat_n(prompt, self.n).enumerate().map(request).collect()
    }

    /// Refuses more answers than can ever be under way, before anything is made of the `prompts`.
    ///
    /// # Errors
    /// 400 for `n` or `prompt`.
    pub(crate) fn check_count(&self, prompts: usize, max_live: usize) -> Result<(), ApiError> {
        let count = prompts * self.n;
        if count <= max_live {
            return Ok(());
        }
        let (param, asked) = match (prompts, self.n) {
            (1, n) => ("n", format!("n is {n}")),
            (_, 1) => ("prompt", format!("prompt has {prompts} entries")),
            (_, n) => ("n", format!("prompt has {prompts} entries and n is {n}")),
        };
        let message =
            format!("{asked}, which makes {count} answers; this server computes and queues at most {max_live}");
        Err(ApiError::invalid(param, message))
    }
}

/// The limit on an answer's tokens, as `param` gives it.
///
/// # Errors
/// 400 where it is negative.
pub(crate) fn limit(param: &str, value: i64) -> Result<usize, ApiError> {
    usize::try_from(value).map_err(|_| ApiError::invalid(param, format!("{param} is {value}; it cannot be negative")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_come_from_the_model_and_requests_override_them() {
        let defaults = Sampling { temperature: 0.7, top_p: 0.9, ..Sampling::default() };
        let requests = Params::default().plan(&defaults).unwrap().requests(vec![1]);
        assert_eq!(requests[0].sampling.temperature, 0.7);
        let params = Params { temperature: Some(0.0), top_k: Some(-1), ..Default::default() };
        let sampling = &params.plan(&defaults).unwrap().requests(vec![1])[0].sampling;
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.0, 0.9, 0));
    }

    #[test]
    fn several_choices_have_seeds_of_their_own() {
        let params = Params { n: Some(3), seed: Some(7), ..Default::default() };
        let requests = params.plan(&Sampling::default()).unwrap().requests(vec![1]);
        assert_eq!(requests.iter().map(|r| r.sampling.seed).collect::<Vec<_>>(), [Some(7), Some(8), Some(9)]);
        assert!(requests.iter().all(|r| r.prompt == [1]));
    }

    #[test]
    fn impossible_values_are_refused() {
        for params in [
            Params { n: Some(0), ..Default::default() },
            Params { n: Some(17), ..Default::default() },
            Params { top_k: Some(-2), ..Default::default() },
        ] {
            assert!(params.plan(&Sampling::default()).is_err(), "{params:?}");
        }
        assert!(limit("max_tokens", -1).is_err());
    }

    #[test]
    fn more_answers_than_can_ever_be_under_way_are_refused() {
        let plan = |n| Params { n: Some(n), ..Default::default() }.plan(&Sampling::default()).unwrap();
        assert!(plan(4).check_count(8, 32).is_ok());
        for (n, prompts, param) in [(5, 1, "n"), (1, 64, "prompt"), (2, 3, "n")] {
            let error = plan(n).check_count(prompts, 4).unwrap_err().to_json();
            assert_eq!(error["error"]["param"], param, "{error}");
        }
    }
}
