//! `models`: what is served, and settings of single models.

use garde::{Path as At, Report, Validate};
use mlx_serving_engine::Sampling;
use mlx_serving_metal_layer::config::section;
use mlx_serving_text::{CallFormat, Formats, ReasoningFormat};
use schemars::JsonSchema;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// `models`
#[derive(Debug, Clone, PartialEq, Default, JsonSchema)]
#[schemars(default)]
pub struct Models {
    /// Folders or hub ids that `serve` loads when the command line names none; the bundled model if this is empty.
    pub serve: Vec<String>,
    /// Jinja file in the place of the chat template of the model that `serve` loads, which must be one model only.
    pub chat_template: Option<PathBuf>,
    /// Format of tool calls in the answers of all models: hermes, qwen3_coder, llama3_json, pythonic, mistral, gemma4, glm or harmony; none
    /// to look for no calls; null goes by each model's chat template.
    #[schemars(regex(pattern = r"^(hermes|qwen3_coder|llama3_json|pythonic|mistral|gemma4|glm|harmony|none)$"))]
    pub tool_call_format: Option<String>,
    /// Format of reasoning in the answers of all models: think, mistral, seed, gemma4 or harmony; none to leave it in the content; null goes
    /// by each model's chat template.
    #[schemars(regex(pattern = r"^(think|mistral|seed|gemma4|harmony|none)$"))]
    pub reasoning_format: Option<String>,
    /// Settings of single models, each under the name that the model has in requests.
    #[schemars(flatten)]
    pub named: BTreeMap<String, ModelSettings>,
}

/// `models.NAME`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// Sampling parameters of requests that name none, in the place of those of the model's own files.
    #[garde(dive)]
    #[serde(deserialize_with = "section")]
    pub sampling_defaults: SamplingDefaults,
}

/// `models.NAME.sampling_defaults`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingDefaults {
    /// 0 takes the most likely token.
    #[garde(inner(range(min = 0.0, max = 2.0)))]
    #[schemars(range(min = 0.0, max = 2.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Keep the smallest set of most likely tokens that reaches this probability; 1 keeps all.
    #[garde(inner(range(min = 0.0, max = 1.0)))]
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Keep the k most likely tokens; 0 and -1 keep all.
    #[garde(inner(range(min = -1_i64, max = 4_294_967_295_i64)))]
    #[schemars(range(min = -1, max = 4_294_967_295_i64))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    /// Keep tokens of at least this share of the largest probability; 0 keeps all.
    #[garde(inner(range(min = 0.0, max = 1.0)))]
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// Weakens tokens of prompt and answer; 1 for none, as 0 is.
    #[garde(inner(custom(penalty)))]
    #[schemars(range(min = 0.0, max = 10.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    /// Weakens tokens of the answer, once each; 0 for none.
    #[garde(inner(range(min = -2.0, max = 2.0)))]
    #[schemars(range(min = -2.0, max = 2.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// Weakens tokens of the answer by their count; 0 for none.
    #[garde(inner(range(min = -2.0, max = 2.0)))]
    #[schemars(range(min = -2.0, max = 2.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
}

/// A penalty that a request may have.
fn penalty(value: &f64, _: &()) -> garde::Result {
    match *value == 0.0 || (0.01..=10.0).contains(value) {
        true => Ok(()),
        false => Err(garde::Error::new("must be 0, which is taken as 1, or from 0.01 to 10")),
    }
}

impl SamplingDefaults {
    /// These parameters in the place of a model's own.
    pub(crate) fn over(&self, own: Sampling) -> Sampling {
        let or = |set: Option<f64>, own: f32| set.map_or(own, |value| value as f32);
        Sampling {
            temperature: or(self.temperature, own.temperature),
            top_p: or(self.top_p, own.top_p),
            top_k: self.top_k.map_or(own.top_k, |k| u32::try_from(k).unwrap_or(0)),
            min_p: or(self.min_p, own.min_p),
            repetition_penalty: or(
                self.repetition_penalty.map(|p| if p == 0.0 { 1.0 } else { p }),
                own.repetition_penalty,
            ),
            presence_penalty: or(self.presence_penalty, own.presence_penalty),
            frequency_penalty: or(self.frequency_penalty, own.frequency_penalty),
            ..own
        }
    }
}

/// Name of no format at all.
const NO_FORMAT: &str = "none";

/// The format of this name; `None` where it is none's.
fn format<F: Copy>(of: &str, formats: &[(&str, F)], name: &str) -> Result<Option<F>, garde::Error> {
    match formats.iter().find(|(known, _)| *known == name) {
        Some((_, format)) => Ok(Some(*format)),
        None if name == NO_FORMAT => Ok(None),
        None => {
            let known: Vec<&str> = formats.iter().map(|(name, _)| *name).collect();
            let known = known.join(", ");
            Err(garde::Error::new(format!("{name:?} is not a format of {of}; it takes {known} or {NO_FORMAT}")))
        }
    }
}

impl Models {
    /// The formats of a model's answers, where its template says these.
    pub(crate) fn formats(&self, detected: Formats) -> Formats {
        let calls =
            self.tool_call_format.as_deref().map(|name| format("", &CallFormat::NAMES, name).unwrap_or_default());
        let reasoning =
            self.reasoning_format.as_deref().map(|name| format("", &ReasoningFormat::NAMES, name).unwrap_or_default());
        Formats { calls: calls.unwrap_or(detected.calls), reasoning: reasoning.unwrap_or(detected.reasoning) }
    }

    /// Sampling parameters of requests to the model of that name, `own` being those of its files.
    pub(crate) fn sampling(&self, name: &str, own: Sampling) -> Sampling {
        match self.named.get(name) {
            Some(settings) => settings.sampling_defaults.over(own),
            None => own,
        }
    }
}

// Every further key is a model's name: derived code would read those as values first, without their places in the file.
impl<'de> Deserialize<'de> for Models {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Models;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys of models")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Models, A::Error> {
                let mut models = Models::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "serve" => models.serve = map.next_value()?,
                        "chat_template" => models.chat_template = map.next_value()?,
                        "tool_call_format" => models.tool_call_format = map.next_value()?,
                        "reasoning_format" => models.reasoning_format = map.next_value()?,
                        _ => {
                            let settings: Option<ModelSettings> = map.next_value()?;
                            models.named.insert(key, settings.unwrap_or_default());
                        }
                    }
                }
                Ok(models)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

impl Serialize for Models {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4 + self.named.len()))?;
        map.serialize_entry("serve", &self.serve)?;
        map.serialize_entry("chat_template", &self.chat_template)?;
        map.serialize_entry("tool_call_format", &self.tool_call_format)?;
        map.serialize_entry("reasoning_format", &self.reasoning_format)?;
        self.named.iter().try_for_each(|(name, settings)| map.serialize_entry(name, settings))?;
        map.end()
    }
}

impl Validate for Models {
    type Context = ();

    fn validate_into(&self, context: &(), parent: &mut dyn FnMut() -> At, report: &mut Report) {
        let calls = self.tool_call_format.as_deref().map(|name| format("tool calls", &CallFormat::NAMES, name).err());
        let reasoning =
            self.reasoning_format.as_deref().map(|name| format("reasoning", &ReasoningFormat::NAMES, name).err());
        for (key, fault) in [("tool_call_format", calls), ("reasoning_format", reasoning)] {
            if let Some(fault) = fault.flatten() {
                report.append(parent().join(key), fault);
            }
        }
        for (name, settings) in &self.named {
            settings.validate_into(context, &mut || parent().join(name.as_str()), report);
        }
    }
}
