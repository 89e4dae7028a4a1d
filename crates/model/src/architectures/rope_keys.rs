//! Keys of rotary embedding.

use super::dense::PARTIAL;
use crate::rope::{Rope, Scaling};
use mlx_serving_checkpoint::{Keys, Nesting, Result};

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
    "mrope_section",
    "mrope_interleaved",
];

/// Keys of [`Scaling::Long`] alone.
const FACTORS: [&str; 2] = ["long_factor", "short_factor"];

/// Longest context before stretching.
const MAX_CONTEXT: f64 = (1u64 << 28) as f64;

/// Content of one object of parameters: newer configurations nest everything in `rope_parameters`, older ones have `rope_theta`
/// beside `rope_scaling`.
#[derive(Debug, Clone, PartialEq)]
struct Parameters {
    theta: Option<f64>,
    /// Share of a head that rotates.
    share: Option<f64>,
    /// `None` where nothing is said of it.
    scaling: Option<Scaling>,
}

/// Rotary embedding that every layer shares. `default_share` of a head rotates where no key says, all of it without; `default_theta` is the
/// base where no key gives one; the model was made for `positions`.
pub(super) fn read(
    keys: &Keys<'_>,
    head_dim: usize,
    default_share: Option<f64>,
    default_theta: Option<f64>,
    positions: usize,
    windows: &[Option<usize>],
) -> Result<Rope> {
    let beside = keys.optional_number(ORIGINAL, 1.0..=MAX_CONTEXT)?;
    let layers =
        Layers { windows, positions, beside, head_dim, default_share, share: share(keys, default_share.is_some())? };
    let old = parameters(keys, "rope_scaling", &layers)?;
    let new = parameters(keys, "rope_parameters", &layers)?;
    let theta = agreed([("rope_theta", theta(keys)?), ("rope_parameters", new.theta), ("rope_scaling", old.theta)])
        .map_err(|key| keys.bad(key, "the same base of frequencies (rope_theta) wherever the file gives one"))?;
    let scaling = agreed([("rope_scaling", old.scaling), ("rope_parameters", new.scaling)])
        .map_err(|key| keys.bad(key, "the same scaling as in rope_scaling"))?
        .unwrap_or(Scaling::None);
    let share = agreed([(PARTIAL, layers.share), ("rope_parameters", new.share), ("rope_scaling", old.share)])
        .map_err(|key| keys.bad(key, format!("the same {PARTIAL} wherever the file gives one")))?;
    let dims = layers.dims(share);
    if dims < 2 || !dims.is_multiple_of(2) {
        let expected =
            format!("a share of a head that is an even number of its {head_dim} values: they rotate in pairs");
        return Err(keys.bad(PARTIAL, expected));
    }
    if let Scaling::Llama3 { original, .. } | Scaling::Yarn { original, .. } = scaling
        && layers.beside.is_some_and(|beside| beside != original)
    {
        return Err(keys.bad(ORIGINAL, format!("{original}, as in the parameters of the rotary embedding")));
    }
    let Some(theta) = theta.or(default_theta) else { return Err(keys.bad("rope_theta", THETA)) };
    if matches!(scaling, Scaling::Dynamic { .. }) && dims == 2 {
        return Err(keys.bad("head_dim", "a number above 2: a single pair has no dynamic scaling"));
    }
    Ok(Rope { dims, theta, interleaved: keys.flag("rope_traditional", false)?, scaling })
}

/// Facts about the model that its rotary parameters depend on.
struct Layers<'a> {
    windows: &'a [Option<usize>],
    /// Longest context that the model was made for.
    positions: usize,
    /// Context before stretching that the file gives outside of the parameters, for those that have none of their own.
    beside: Option<f64>,
    head_dim: usize,
    /// Share of a head that rotates where no key says, in architectures that may rotate a part.
    default_share: Option<f64>,
    /// Share that the file gives outside of the parameters.
    share: Option<f64>,
}

impl Layers<'_> {
    /// Values of a head that rotate.
    fn dims(&self, share: Option<f64>) -> usize {
        (self.head_dim as f64 * share.or(self.share).or(self.default_share).unwrap_or(1.0)) as usize
    }
}

const ORIGINAL: &str = "original_max_position_embeddings";
const THETA: &str = "a number from 2 to 1e12";

fn theta(keys: &Keys<'_>) -> Result<Option<f64>> {
    keys.optional_number("rope_theta", 2.0..=1e12)
}

/// Share of a head that rotates, by a key that means nothing in most architectures.
fn share(keys: &Keys<'_>, partial: bool) -> Result<Option<f64>> {
    match partial {
        true => keys.optional_number(PARTIAL, 0.0..=1.0),
        false => keys.refuse_unless(PARTIAL, Some(1.0)).map(|()| None),
    }
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

/// The parameters under a key, which may be nested by the layers' type. Types that no layer has do not count.
fn parameters(keys: &Keys<'_>, key: &str, layers: &Layers<'_>) -> Result<Parameters> {
    let Some(all) = keys.object(key)? else { return Ok(Parameters { theta: None, share: None, scaling: None }) };
    match all.nesting() {
        Nesting::Flat => return one(&all, layers),
        Nesting::Nested => {}
        Nesting::Mixed => {
            return Err(keys.bad(key, "either parameters, or an object of them for each type of layers"));
        }
    }
    let mut found = Vec::new();
    for (kind, used) in [
        ("full_attention", layers.windows.iter().any(Option::is_none)),
        ("sliding_attention", layers.windows.iter().any(Option::is_some)),
    ] {
        if used {
            let expected = "an object: it is nested by the layers' type, and layers of this type are there";
            let own = all.object(kind)?.ok_or_else(|| all.bad(kind, expected))?;
            found.push((kind, one(&own, layers)?));
        }
    }
    match &found[..] {
        [(_, first), .., (kind, last)] if first != last => Err(all.bad(
            kind,
            "what full_attention has: rotary embeddings that differ by the layers' type are not implemented",
        )),
        [(_, first), ..] => Ok(first.clone()),
        [] => Ok(Parameters { theta: None, share: None, scaling: None }),
    }
}

/// The parameters of one object that is not nested.
fn one(keys: &Keys<'_>, layers: &Layers<'_>) -> Result<Parameters> {
    let share = share(keys, layers.default_share.is_some())?;
    let scaling = scaling(keys, layers, share)?;
    let known =
        |key: &&str| KNOWN.contains(key) || matches!(scaling, Some(Scaling::Long { .. })) && FACTORS.contains(key);
    if let Some(key) = keys.names().find(|key| !known(key)) {
        return Err(keys.bad(key, "nothing: rotary embedding with this key is not implemented"));
    }
    keys.refuse_unless("extrapolation_factor", Some(1.0))?;
    if !keys.flag("truncate", true)? {
        return Err(keys.bad("truncate", "true: a ramp between fractions of a pair is not implemented"));
    }
    Ok(Parameters { theta: theta(keys)?, share, scaling })
}

fn scaling(keys: &Keys<'_>, layers: &Layers<'_>, share: Option<f64>) -> Result<Option<Scaling>> {
    const KINDS: [&str; 8] = ["default", "linear", "dynamic", "llama3", "yarn", "longrope", "su", "mrope"];
    let same = |kind| match kind {
        // All sections of a multimodal model's positions are one text's.
        "mrope" => "default",
        "su" => "longrope",
        kind => kind,
    };
    let kind = |key| keys.choice(key, &KINDS).map(|kind| kind.map(same));
    let kind = agreed([("type", kind("type")?), ("rope_type", kind("rope_type")?)])
        .map_err(|key| keys.bad(key, "the same as type"))?;
    let Some(kind) = kind else {
        return match keys.optional_number("factor", 1.0..=1.0) {
            Ok(_) => Ok(None),
            Err(_) => {
                Err(keys
                    .bad("rope_type", "default, linear, dynamic, llama3, yarn or longrope, because a factor is there"))
            }
        };
    };
    let factor = || keys.number("factor", None, 0.01..=1e4);
    let original = |default| keys.number(ORIGINAL, layers.beside.or(Some(default)), 1.0..=MAX_CONTEXT);
    let positive = |key, default| keys.number(key, Some(default), 1e-3..=1e4);
    let below = |low: &str, (high, value), limit: f64| match limit < value {
        true => Ok(()),
        false => Err(keys.bad(high, format!("a number above {low}, which is {limit}"))),
    };
    Ok(Some(match kind {
        "linear" => Scaling::Linear { factor: factor()? },
        "dynamic" => Scaling::Dynamic { factor: factor()?, max_position: layers.positions },
        "llama3" => {
            let (low, high) = (positive("low_freq_factor", 1.0)?, positive("high_freq_factor", 4.0)?);
            below("low_freq_factor", ("high_freq_factor", high), low)?;
            Scaling::Llama3 { factor: factor()?, low, high, original: original(8192.0)? }
        }
        "yarn" => {
            let (beta_fast, beta_slow) = (positive("beta_fast", 32.0)?, positive("beta_slow", 1.0)?);
            below("beta_slow", ("beta_fast", beta_fast), beta_slow)?;
            let factor = factor()?;
            Scaling::Yarn {
                factor,
                original: original(4096.0)?,
                beta_fast,
                beta_slow,
                attention: attention(keys, factor)?,
            }
        }
        "longrope" => {
            let dims = layers.dims(share);
            let expected = || keys.bad("long_factor", format!("a list of {} numbers: one for each pair", dims / 2));
            let factors = keys.numbers("long_factor", dims / 2, 1e-2..=1e4)?.ok_or_else(expected)?;
            Scaling::Long { factors, attention: long_attention(keys, layers)? }
        }
        _ => Scaling::None,
    }))
}

/// LongRoPE's factor of rotated queries and keys: `attention_factor`, else what the stretching of the context asks for.
fn long_attention(keys: &Keys<'_>, layers: &Layers<'_>) -> Result<f64> {
    let original = keys.number(ORIGINAL, layers.beside.or(Some(4096.0)), 2.0..=MAX_CONTEXT)?;
    if layers.beside.is_some_and(|beside| beside != original) {
        return Err(keys.bad(ORIGINAL, "the same as outside of the parameters of the rotary embedding"));
    }
    let factor = keys.number("factor", Some(layers.positions as f64 / original), 1e-9..=1e9)?;
    let given = keys.optional_number("attention_factor", 0.01..=100.0)?;
    Ok(given.unwrap_or(if factor > 1.0 { (1.0 + factor.ln() / original.ln()).sqrt() } else { 1.0 }))
}

/// YaRN's factor of rotated queries and keys: `attention_factor`, else what the context's stretching by `factor` asks for; times
/// `attn_factor`.
fn attention(keys: &Keys<'_>, factor: f64) -> Result<f64> {
    let temperature = |mscale: f64| if factor > 1.0 { 0.1 * mscale * factor.ln() + 1.0 } else { 1.0 };
    let mscale = keys.number("mscale", Some(1.0), 0.0..=100.0)?;
    let all_dim = keys.number("mscale_all_dim", Some(0.0), 0.0..=100.0)?;
    let given = keys.optional_number("attention_factor", 0.01..=100.0)?;
    let times = keys.number("attn_factor", Some(1.0), 0.01..=100.0)?;
    Ok(times * given.unwrap_or(temperature(mscale) / temperature(all_dim)))
}
