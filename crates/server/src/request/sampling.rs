//! Sampling parameters: the one place where the server spells them. Dialects whose names differ read their own fields into
//! [`SamplingFields`].

use super::neutral::Neutral;
use super::object::fields;
use super::whole::{Whole, whole};
use crate::error::{ApiError, shorten};
use mlx_serving_engine::{MAX_BIASES, Sampling};
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Error text for a number that 32 bits cannot hold.
const TOO_LARGE: &str = "is a number too large to be held";

fields! {
    /// Parameters by which tokens are chosen, with OpenAI's names and, beyond them, vLLM's.
    pub(crate) struct SamplingFields {
        temperature: f32,
        top_p: f32,
        top_k: TopK,
        min_p: f32,
        repetition_penalty: f32,
        presence_penalty: f32,
        frequency_penalty: f32,
        seed: Whole,
        logit_bias: LogitBias,
        /// mlx-lm's windows of the penalties, which count everything here.
        repetition_context_size: Window,
        presence_context_size: Window,
        frequency_context_size: Window,
    }
}

impl SamplingFields {
    /// The engine's parameters; `defaults` are the model's own. The engine checks their ranges, which are the same for every dialect.
    ///
    /// # Errors
    /// 400 for the window of a penalty, and for what no number of 32 bits can hold.
    pub(crate) fn over(self, defaults: &Sampling) -> Result<Sampling, ApiError> {
        let windows = [&self.repetition_context_size, &self.presence_context_size, &self.frequency_context_size];
        let windows = windows.map(|window| window.as_ref().and_then(|window| window.0));
        for (name, value) in [
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("min_p", self.min_p),
            ("repetition_penalty", self.repetition_penalty),
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ] {
            if value.is_some_and(f32::is_infinite) {
                return Err(ApiError::invalid(name, format!("{name} {TOO_LARGE}")));
            }
        }
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            top_k: self.top_k.map_or(defaults.top_k, |top_k| top_k.0),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            // mlx-lm's number for none.
            repetition_penalty: self
                .repetition_penalty
                .map_or(defaults.repetition_penalty, |p| if p == 0.0 { 1.0 } else { p }),
            presence_penalty: self.presence_penalty.unwrap_or(defaults.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(defaults.frequency_penalty),
            seed: self.seed.map(|seed| seed.0 as u64),
            logit_bias: self.logit_bias.unwrap_or_default().0,
        };
        let penalties = [
            ("repetition", sampling.repetition_penalty != 1.0),
            ("presence", sampling.presence_penalty != 0.0),
            ("frequency", sampling.frequency_penalty != 0.0),
        ];
        for ((penalty, on), window) in penalties.into_iter().zip(windows) {
            // Without its penalty a window asks for nothing.
            if let Some(window) = window.filter(|_| on) {
                let name = format!("{penalty}_context_size");
                let message = format!("{name} is {window}, but {penalty}_penalty has no window here; leave it out");
                return Err(ApiError::invalid(name, message));
            }
        }
        Ok(sampling)
    }
}

/// A penalty's window of tokens, if there is one.
#[derive(Debug)]
pub(crate) struct Window(Option<i64>);

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Numbers are windows; what else asks for nothing is as everywhere.
        struct Size;
        const OTHER: Neutral<'_> = Neutral("context_size");
        impl<'de> Visitor<'de> for Size {
            type Value = Option<i64>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Option<i64>, E> {
                Ok(Some(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Option<i64>, E> {
                Whole::deserialize(number.into_deserializer()).map(|number| Some(number.0))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Option<i64>, E> {
                whole(number).map(Some)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Option<i64>, E> {
                OTHER.visit_bool(value).map(|()| None)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Option<i64>, E> {
                OTHER.visit_str(text).map(|()| None)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Option<i64>, A::Error> {
                OTHER.visit_seq(list).map(|()| None)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<i64>, A::Error> {
                OTHER.visit_map(map).map(|()| None)
            }
        }
        deserializer.deserialize_any(Size).map(Self)
    }
}

/// A parameter as a client writes it, not as 64 bits have it: 0.7 for the nearest number of 32 bits.
pub(crate) fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_default()
}

/// `top_k`; numbers below 1, and those beyond every vocabulary, keep all tokens.
#[derive(Debug)]
pub(crate) struct TopK(u32);

impl<'de> Deserialize<'de> for TopK {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Whole::deserialize(deserializer).map(|k| Self(u32::try_from(k.0).unwrap_or(0)))
    }
}

/// `logit_bias`: token ids to additions; null adds nothing.
#[derive(Debug, Default)]
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
                    if let Some(bias) = map.next_value::<Option<f32>>()? {
                        if bias.is_infinite() {
                            return Err(A::Error::custom(format!("has a value for token {id} that {TOO_LARGE}")));
                        }
                        biases.push((id, bias));
                    }
                }
                Ok(biases)
            }
        }
        deserializer.deserialize_map(Biases).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_come_from_the_model_and_requests_override_them() {
        let penalties = Sampling { presence_penalty: 0.5, frequency_penalty: 0.25, ..Sampling::default() };
        let defaults = Sampling { temperature: 0.7, top_p: 0.9, top_k: 40, ..penalties };
        assert_eq!(SamplingFields::default().over(&defaults).unwrap(), defaults);
        let fields = SamplingFields {
            temperature: Some(0.0),
            top_k: Some(TopK(0)),
            seed: Some(Whole(-1)),
            ..Default::default()
        };
        let sampling = fields.over(&defaults).unwrap();
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.0, 0.9, 0));
        assert_eq!(sampling.seed, Some(u64::MAX));
    }

    #[test]
    fn a_number_that_32_bits_cannot_hold_is_called_too_large() {
        for number in [f32::INFINITY, f32::NEG_INFINITY] {
            let fields = SamplingFields { temperature: Some(number), ..Default::default() };
            let error = fields.over(&Sampling::default()).unwrap_err().to_json();
            assert_eq!(error["error"]["param"], "temperature");
            assert_eq!(error["error"]["message"], "temperature is a number too large to be held");
        }
    }

    #[test]
    fn top_k_keeps_all_or_so_many() {
        let top_k = |json: &str| serde_json::from_str::<TopK>(json).map(|top_k| top_k.0).map_err(|e| e.to_string());
        for (json, k) in [("-1", 0), ("0", 0), ("7", 7), ("7.0", 7), ("-2", 0), ("4294967296", 0), ("200000", 200_000)]
        {
            assert_eq!(top_k(json), Ok(k), "{json}");
        }
        assert!(top_k("1.5").is_err());
    }

    #[test]
    fn a_window_is_refused_where_there_is_a_penalty_to_which_it_would_apply() {
        let over = |json: &str, defaults: &Sampling| {
            let mut fields = SamplingFields::default();
            let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).unwrap();
            let number = |name: &str| json.get(name).and_then(serde_json::Value::as_f64).map(|n| n as f32);
            let window = |name: &str| json.get(name).and_then(serde_json::Value::as_i64).map(|n| Window(Some(n)));
            fields.repetition_penalty = number("repetition_penalty");
            fields.presence_penalty = number("presence_penalty");
            fields.repetition_context_size = window("repetition_context_size");
            fields.presence_context_size = window("presence_context_size");
            fields.frequency_context_size = window("frequency_context_size");
            fields.over(defaults).map(|s| s.repetition_penalty).map_err(|e| e.to_json()["error"]["param"].clone())
        };
        let (plain, penalizing) = (Sampling::default(), Sampling { repetition_penalty: 1.1, ..Sampling::default() });
        let all = r#"{"repetition_context_size": 20, "presence_context_size": 20, "frequency_context_size": 20}"#;
        assert_eq!(over(all, &plain), Ok(1.0));
        assert_eq!(over(r#"{"repetition_penalty": 0, "repetition_context_size": 20}"#, &penalizing), Ok(1.0));
        assert_eq!(over(all, &penalizing), Err("repetition_context_size".into()));
        let presence = r#"{"presence_penalty": 1, "presence_context_size": 20}"#;
        assert_eq!(over(presence, &plain), Err("presence_context_size".into()));
    }
}
