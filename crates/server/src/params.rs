//! The parameters that chat and text completions share, parsed once into valid engine requests.

use crate::error::ApiError;
use mlx_serving_engine::{Request, Sampling};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A string or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(s) => vec![s],
            OneOrMany::Many(v) => v,
        }
    }
}

/// `stream_options`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    #[serde(default)]
    pub include_usage: bool,
}

/// Sampling and stopping, with OpenAI's names and, beyond them, vLLM's.
#[derive(Debug, Clone, Default)]
pub(crate) struct SamplingParams {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<i64>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub seed: Option<i64>,
    pub logit_bias: Option<BTreeMap<String, f32>>,
    pub max_tokens: Option<i64>,
    pub stop: Option<OneOrMany>,
    pub ignore_eos: Option<bool>,
    pub n: Option<i64>,
    pub logprobs: Option<usize>,
}

/// Answers to one prompt at most.
const MAX_CHOICES: i64 = 16;
/// OpenAI's limit.
const MAX_STOPS: usize = 4;
/// What one slot of the engine carries for each sequence.
const MAX_BIASES: usize = 1024;

impl SamplingParams {
    /// The engine's requests, one for each choice asked for. `defaults` come from the model's generation_config.json.
    pub(crate) fn requests(self, prompt: Vec<u32>, defaults: &Sampling) -> Result<Vec<Request>, ApiError> {
        let n = self.n.unwrap_or(1);
        if !(1..=MAX_CHOICES).contains(&n) {
            return Err(ApiError::invalid("n", format!("n is {n}; it must be 1 to {MAX_CHOICES}")));
        }
        let stop = self.stop.map(OneOrMany::into_vec).unwrap_or_default();
        if stop.len() > MAX_STOPS || stop.iter().any(String::is_empty) {
            let message = format!("stop has {} strings; it takes at most {MAX_STOPS}, none of them empty", stop.len());
            return Err(ApiError::invalid("stop", message));
        }
        let top_k = match self.top_k {
            None => defaults.top_k,
            Some(-1) => 0,
            Some(k) => u32::try_from(k)
                .map_err(|_| ApiError::invalid("top_k", format!("top_k is {k}; it must be -1 or more")))?,
        };
        let max_tokens =
            match self.max_tokens {
                None => None,
                Some(m) => Some(usize::try_from(m).ok().filter(|&m| m > 0).ok_or_else(|| {
                    ApiError::invalid("max_tokens", format!("max_tokens is {m}; it must be at least 1"))
                })?),
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
            logit_bias: biases(self.logit_bias.unwrap_or_default())?,
        };
        Ok((0..n as u64)
            .map(|i| Request {
                prompt: prompt.clone(),
                sampling: Sampling { seed: sampling.seed.map(|s| s.wrapping_add(i)), ..sampling.clone() },
                max_tokens,
                stop: stop.clone(),
                ignore_eos: self.ignore_eos.unwrap_or(false),
                logprobs: self.logprobs,
                prompt_logprobs: None,
                begins_text: false,
            })
            .collect())
    }
}

fn biases(map: BTreeMap<String, f32>) -> Result<Vec<(u32, f32)>, ApiError> {
    if map.len() > MAX_BIASES {
        return Err(ApiError::invalid(
            "logit_bias",
            format!("logit_bias has {} entries; at most {MAX_BIASES}", map.len()),
        ));
    }
    map.into_iter()
        .map(|(token, bias)| match token.parse() {
            Ok(id) => Ok((id, bias)),
            Err(_) => {
                Err(ApiError::invalid("logit_bias", format!("logit_bias has the key {token:?}; keys are token ids")))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_come_from_the_model_and_requests_override_them() {
        let defaults = Sampling { temperature: 0.7, top_p: 0.9, ..Sampling::default() };
        let requests = SamplingParams::default().requests(vec![1], &defaults).unwrap();
        assert_eq!(requests[0].sampling.temperature, 0.7);
        let params = SamplingParams { temperature: Some(0.0), top_k: Some(-1), ..Default::default() };
        let sampling = &params.requests(vec![1], &defaults).unwrap()[0].sampling;
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.0, 0.9, 0));
    }

    #[test]
    fn several_choices_have_seeds_of_their_own() {
        let params = SamplingParams { n: Some(3), seed: Some(7), ..Default::default() };
        let requests = params.requests(vec![1], &Sampling::default()).unwrap();
        assert_eq!(requests.iter().map(|r| r.sampling.seed).collect::<Vec<_>>(), [Some(7), Some(8), Some(9)]);
    }

    #[test]
    fn impossible_values_are_refused() {
        for params in [
            SamplingParams { n: Some(0), ..Default::default() },
            SamplingParams { n: Some(17), ..Default::default() },
            SamplingParams { top_k: Some(-2), ..Default::default() },
            SamplingParams { max_tokens: Some(0), ..Default::default() },
            SamplingParams { max_tokens: Some(-1), ..Default::default() },
            SamplingParams { stop: Some(OneOrMany::One(String::new())), ..Default::default() },
            SamplingParams { stop: Some(OneOrMany::Many(vec!["a".into(); 5])), ..Default::default() },
            SamplingParams { logit_bias: Some([("x".into(), 1.0)].into()), ..Default::default() },
        ] {
            assert!(params.clone().requests(vec![1], &Sampling::default()).is_err(), "{params:?}");
        }
    }
}
