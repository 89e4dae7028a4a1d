use crate::CheckpointError;
use crate::keys::Keys;
use serde_json::Value;

/// Rotary embedding's parameters, the same for every layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Neighboring values form a pair, instead of values half a head apart.
    pub traditional: bool,
    /// Scaling of positions beyond the trained context.
    pub scaling: RopeScaling,
}

/// Scaling of rotary positions beyond the trained context.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions divided by the factor.
    Linear {
        /// Factor.
        factor: f64,
    },
    /// The base grows with the sequence.
    Dynamic {
        /// Factor.
        factor: f64,
    },
    /// Long wavelengths stretched, short ones kept.
    Llama3 {
        /// Factor.
        factor: f64,
        /// Wavelengths above context / this are stretched.
        low_freq_factor: f64,
        /// Wavelengths below context / this are kept.
        high_freq_factor: f64,
        /// Context before stretching.
        original: f64,
    },
    /// YaRN.
    Yarn {
        /// Factor.
        factor: f64,
        /// Context before stretching.
        original: f64,
        /// Turns at which the ramp begins.
        beta_fast: f64,
        /// Turns at which it ends.
        beta_slow: f64,
        /// Factor of rotated queries and keys: attention's temperature.
        attention: f64,
    },
}

/// Keys that are read, and those that change nothing. Any other may change the result.
const KNOWN: [&str; 19] = [
    "type",
    "rope_type",
    "rope_theta",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "attention_factor",
    "attn_factor",
    "extrapolation_factor",
    "truncate",
    "partial_rotary_factor",
    "finetuned",
    // The sections of a multimodal model's positions are all one text's.
    "mrope_section",
    "mrope_interleaved",
];

/// Longest context before stretching.
const MAX_CONTEXT: f64 = (1u64 << 28) as f64;

/// Content of one object of parameters: newer configurations nest everything in `rope_parameters`, older ones have `rope_theta`
/// beside `rope_scaling`.
#[derive(Debug, Clone, PartialEq)]
struct Parameters {
    theta: Option<f64>,
    /// `None` where nothing is said of it.
    scaling: Option<RopeScaling>,
}

impl Rope {
    /// Reads the keys of a configuration whose layers have these windows.
    pub(crate) fn read(keys: &Keys<'_>, model_type: &str, windows: &[Option<usize>]) -> Result<Self, CheckpointError> {
        let default_theta = match model_type {
            "qwen2" => Some(1e6),
            "qwen3" => None,
            _ => Some(1e4),
        };
        let beside = keys.optional_number(ORIGINAL, 1.0..=MAX_CONTEXT)?;
        let old = parameters(keys, "rope_scaling", windows, beside)?;
        let new = parameters(keys, "rope_parameters", windows, beside)?;
        let theta = agreed([("rope_theta", theta(keys)?), ("rope_parameters", new.theta), ("rope_scaling", old.theta)])
            .map_err(|key| keys.bad(key, "the same base of frequencies (rope_theta) wherever the file gives one"))?;
        let scaling = agreed([("rope_scaling", old.scaling), ("rope_parameters", new.scaling)])
            .map_err(|key| keys.bad(key, "the same scaling as in rope_scaling"))?
            .unwrap_or(RopeScaling::None);
        if let RopeScaling::Llama3 { original, .. } | RopeScaling::Yarn { original, .. } = scaling
            && beside.is_some_and(|beside| beside != original)
        {
            return Err(keys.bad(ORIGINAL, format!("{original}, as in the parameters of the rotary embedding")));
        }
        let Some(theta) = theta.or(default_theta) else { return Err(keys.bad("rope_theta", THETA)) };
        Ok(Rope { theta, traditional: keys.flag("rope_traditional", false)?, scaling })
    }
}

const ORIGINAL: &str = "original_max_position_embeddings";
const THETA: &str = "a number from 2 to 1e12";

fn theta(keys: &Keys<'_>) -> Result<Option<f64>, CheckpointError> {
    keys.optional_number("rope_theta", 2.0..=1e12)
}

/// The one value that is given, in several places perhaps; the first place that says something else.
fn agreed<T: PartialEq, const N: usize>(found: [(&'static str, Option<T>); N]) -> Result<Option<T>, &'static str> {
    let mut value = None;
    for (place, found) in found {
        match (&value, found) {
            (_, None) => {}
            (None, found) => value = found,
            (Some(value), Some(found)) if *value == found => {}
            _ => return Err(place),
        }
    }
    Ok(value)
}

/// The parameters under a key, which may be nested by the layers' type. Types that no layer has do not count. `beside` is the context
/// before stretching that the file gives outside of them, for those that have none of their own.
fn parameters(
    keys: &Keys<'_>,
    key: &str,
    windows: &[Option<usize>],
    beside: Option<f64>,
) -> Result<Parameters, CheckpointError> {
    let Some(all) = keys.object(key)? else { return Ok(Parameters { theta: None, scaling: None }) };
    if !all.map.values().any(Value::is_object) {
        return one(&all, beside);
    }
    if !all.map.values().all(|value| value.is_object() || value.is_null()) {
        return Err(keys.bad(key, "either parameters, or an object of them for each type of layers"));
    }
    let mut found = Vec::new();
    for (kind, used) in [
        ("full_attention", windows.iter().any(Option::is_none)),
        ("sliding_attention", windows.iter().any(Option::is_some)),
    ] {
        if used {
            let expected = "an object: it is nested by the layers' type, and layers of this type are there";
            let own = all.object(kind)?.ok_or_else(|| all.bad(kind, expected))?;
            found.push((kind, one(&own, beside)?));
        }
    }
    match &found[..] {
        [(_, first), .., (kind, last)] if first != last => Err(all.bad(
            kind,
            "what full_attention has: rotary embeddings that differ by the layers' type are not implemented",
        )),
        [(_, first), ..] => Ok(first.clone()),
        [] => Ok(Parameters { theta: None, scaling: None }),
    }
}

/// The parameters of one object that is not nested.
fn one(keys: &Keys<'_>, beside: Option<f64>) -> Result<Parameters, CheckpointError> {
    for key in keys.map.keys() {
        if keys.get(key).is_some() && !KNOWN.contains(&key.as_str()) {
            return Err(keys.bad(key, "nothing: rotary embedding with this key is not implemented"));
        }
    }
    keys.refuse_unless("partial_rotary_factor", Some(1.0))?;
    keys.refuse_unless("extrapolation_factor", Some(1.0))?;
    if !keys.flag("truncate", true)? {
        return Err(keys.bad("truncate", "true: a ramp between fractions of a pair is not implemented"));
    }
    Ok(Parameters { theta: theta(keys)?, scaling: scaling(keys, beside)? })
}

fn scaling(keys: &Keys<'_>, beside: Option<f64>) -> Result<Option<RopeScaling>, CheckpointError> {
    let key = if keys.get("type").is_some() { "type" } else { "rope_type" };
    const TYPES: &str = "default, linear, dynamic, llama3 or yarn";
    let kind = agreed([("type", keys.get("type")), ("rope_type", keys.get("rope_type"))])
        .map_err(|key| keys.bad(key, "the same as type"))?;
    let Some(kind) = kind else {
        return match keys.get("factor") {
            Some(factor) if factor.as_f64() != Some(1.0) => Err(keys.bad(key, TYPES)),
            _ => Ok(None),
        };
    };
    let factor = || keys.number("factor", None, 0.01..=1e4);
    let original = |default| keys.number(ORIGINAL, beside.or(Some(default)), 1.0..=MAX_CONTEXT);
    let positive = |key, default| keys.number(key, Some(default), 1e-3..=1e4);
    let below = |low: &str, (high, value), limit: f64| match limit < value {
        true => Ok(()),
        false => Err(keys.bad(high, format!("a number above {low}, which is {limit}"))),
    };
    Ok(Some(match kind.as_str() {
        Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: factor()? },
        Some("dynamic") => RopeScaling::Dynamic { factor: factor()? },
        Some("llama3") => {
            let low_freq_factor = positive("low_freq_factor", 1.0)?;
            let high_freq_factor = positive("high_freq_factor", 4.0)?;
            below("low_freq_factor", ("high_freq_factor", high_freq_factor), low_freq_factor)?;
            RopeScaling::Llama3 { factor: factor()?, low_freq_factor, high_freq_factor, original: original(8192.0)? }
        }
        Some("yarn") => {
            let (beta_fast, beta_slow) = (positive("beta_fast", 32.0)?, positive("beta_slow", 1.0)?);
            below("beta_slow", ("beta_fast", beta_fast), beta_slow)?;
            let factor = factor()?;
            RopeScaling::Yarn {
                factor,
                original: original(4096.0)?,
                beta_fast,
                beta_slow,
                attention: attention(keys, factor)?,
            }
        }
        _ => return Err(keys.bad(key, TYPES)),
    }))
}

/// YaRN's factor of rotated queries and keys: `attention_factor`, else what the context's stretching by `factor` asks for; times
/// `attn_factor`.
fn attention(keys: &Keys<'_>, factor: f64) -> Result<f64, CheckpointError> {
    let temperature = |mscale: f64| if factor > 1.0 { 0.1 * mscale * factor.ln() + 1.0 } else { 1.0 };
    let mscale = keys.number("mscale", Some(1.0), 0.0..=100.0)?;
    let all_dim = keys.number("mscale_all_dim", Some(0.0), 0.0..=100.0)?;
    let given = keys.optional_number("attention_factor", 0.01..=100.0)?;
    let times = keys.number("attn_factor", Some(1.0), 0.01..=100.0)?;
    Ok(times * given.unwrap_or(temperature(mscale) / temperature(all_dim)))
}
