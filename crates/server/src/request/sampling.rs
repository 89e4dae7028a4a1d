//! Sampling parameters: the one place where the server spells them. Dialects whose names differ read their own fields into
//! [`SamplingFields`].

use super::object::fields;
use crate::error::shorten;
use mlx_serving_engine::{MAX_BIASES, Sampling};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::fmt;

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
        seed: i64,
        logit_bias: LogitBias,
    }
}

impl SamplingFields {
    /// The engine's parameters; `defaults` are the model's own. The engine checks their ranges, which are the same for every dialect.
    pub(crate) fn over(self, defaults: &Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            top_k: self.top_k.map_or(defaults.top_k, |top_k| top_k.0),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            seed: self.seed.map(|seed| seed as u64),
            logit_bias: self.logit_bias.unwrap_or_default().0,
        }
    }
}

/// `top_k`; -1 and 0 keep all tokens.
#[derive(Debug)]
pub(crate) struct TopK(u32);

impl<'de> Deserialize<'de> for TopK {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            -1 => Ok(Self(0)),
            k => u32::try_from(k)
                .map(Self)
                .map_err(|_| D::Error::custom(format!("is {k}; it must be -1, for all tokens, to {}", u32::MAX))),
        }
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
                    if let Some(bias) = map.next_value()? {
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
        let defaults = Sampling { temperature: 0.7, top_p: 0.9, top_k: 40, ..Sampling::default() };
        assert_eq!(SamplingFields::default().over(&defaults), defaults);
        let fields =
            SamplingFields { temperature: Some(0.0), top_k: Some(TopK(0)), seed: Some(-1), ..Default::default() };
        let sampling = fields.over(&defaults);
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.0, 0.9, 0));
        assert_eq!(sampling.seed, Some(u64::MAX));
    }

    #[test]
    fn top_k_keeps_all_or_so_many() {
        let top_k = |json: &str| serde_json::from_str::<TopK>(json).map(|top_k| top_k.0).map_err(|e| e.to_string());
        assert_eq!((top_k("-1"), top_k("0"), top_k("7")), (Ok(0), Ok(0), Ok(7)));
        for refused in ["-2", "4294967296"] {
            assert!(top_k(refused).is_err_and(|e| e.starts_with(&format!("is {refused}; it must be -1"))), "{refused}");
        }
    }
}
