//! Keys of rotary embedding.

use super::dense::{Defaults, PARTIAL};
use crate::rope::{Rope, Scaling};
use mlx_serving_checkpoint::{Keys, Nesting, Result};
use mlx_serving_device::ops::Growth;

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
#[derive(Debug, Clone, Default, PartialEq)]
struct Parameters {
    theta: Option<f64>,
    /// Share of a head that rotates.
    share: Option<f64>,
    /// `None` where nothing is said of it.
    scaling: Option<Scaling>,
    growth: Option<Growth>,
}

/// Rotary embeddings of a model that was made for `positions`: one for all layers, or, where they differ, that of the layers without a
/// window and then that of the others.
pub(super) fn read(
    keys: &Keys<'_>,
    head_dim: usize,
    defaults: &Defaults,
    positions: usize,
    windows: &[Option<usize>],
) -> Result<Vec<Rope>> {
    let beside = keys.optional_number(ORIGINAL, 1.0..=MAX_CONTEXT)?;
    let share = share(keys, defaults.share.is_some())?;
    let mut ropes = Vec::new();
    for slides in [false, true] {
        if windows.iter().any(|window| window.is_some() == slides) {
            ropes.push(one_kind(keys, &Layers { slides, positions, beside, head_dim, defaults, share })?);
        }
    }
    ropes.dedup();
    Ok(ropes)
}

/// Rotary embedding of the layers with a window, or of those without.
fn one_kind(keys: &Keys<'_>, layers: &Layers<'_>) -> Result<Rope> {
    let old = parameters(keys, "rope_scaling", layers)?;
    let new = parameters(keys, "rope_parameters", layers)?;
    let (base, default) = layers.base();
    let theta = agreed([(base, theta(keys, base)?), ("rope_parameters", new.theta), ("rope_scaling", old.theta)])
        .map_err(|key| keys.bad(key, format!("the same base of frequencies ({base}) wherever the file gives one")))?;
    let scaling = agreed([("rope_scaling", old.scaling), ("rope_parameters", new.scaling)])
        .map_err(|key| keys.bad(key, "the same scaling as in rope_scaling"))?
        .unwrap_or(Scaling::None);
    let growth = agreed([("rope_scaling", old.growth), ("rope_parameters", new.growth)])
        .map_err(|key| keys.bad(key, format!("the same {GROWTH} as in rope_scaling")))?;
    let share = agreed([(PARTIAL, layers.share), ("rope_parameters", new.share), ("rope_scaling", old.share)])
        .map_err(|key| keys.bad(key, format!("the same {PARTIAL} wherever the file gives one")))?;
    let (dims, head_dim) = (layers.dims(share), layers.head_dim);
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
    let Some(theta) = theta.or(default) else { return Err(keys.bad(base, THETA)) };
    if matches!(scaling, Scaling::Dynamic { .. }) && dims == 2 {
        return Err(keys.bad("head_dim", "a number above 2: a single pair has no dynamic scaling"));
    }
    Ok(Rope { dims, theta, interleaved: keys.flag("rope_traditional", false)?, scaling, growth })
}

/// Facts about the model and its layers of one kind that their rotary parameters depend on.
struct Layers<'a> {
    /// True if they have a window.
    slides: bool,
    /// Longest context that the model was made for.
    positions: usize,
    /// Context before stretching that the file gives outside of the parameters, for those that have none of their own.
    beside: Option<f64>,
    head_dim: usize,
    defaults: &'a Defaults,
    /// Share that the file gives outside of the parameters.
    share: Option<f64>,
}

impl Layers<'_> {
    /// Values of a head that rotate.
    fn dims(&self, share: Option<f64>) -> usize {
        (self.head_dim as f64 * share.or(self.share).or(self.defaults.share).unwrap_or(1.0)) as usize
    }

    /// True if they have a base of their own, and none of the parameters that are all layers'.
    fn local(&self) -> bool {
        self.slides && self.defaults.local_theta.is_some()
    }

    /// Key of the base, and its default.
    fn base(&self) -> (&'static str, Option<f64>) {
        match self.local() {
            true => (LOCAL_THETA, self.defaults.local_theta),
            false => ("rope_theta", self.defaults.theta),
        }
    }
}

/// Key of the base of layers with a window.
pub(super) const LOCAL_THETA: &str = "rope_local_base_freq";
/// Key of the growth of queries with their position.
pub(super) const GROWTH: &str = "llama_4_scaling_beta";
const ORIGINAL: &str = "original_max_position_embeddings";
const THETA: &str = "a number from 2 to 1e12";

fn theta(keys: &Keys<'_>, key: &str) -> Result<Option<f64>> {
    keys.optional_number(key, 2.0..=1e12)
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
    let Some(all) = keys.object(key)? else { return Ok(Parameters::default()) };
    let kind = if layers.slides { "sliding_attention" } else { "full_attention" };
    match all.nesting() {
        Nesting::Flat if layers.local() => Ok(Parameters::default()),
        Nesting::Flat => one(&all, layers),
        Nesting::Nested => {
            let expected = "an object: it is nested by the layers' type, and layers of this type are there";
            one(&all.object(kind)?.ok_or_else(|| all.bad(kind, expected))?, layers)
        }
        Nesting::Mixed => Err(keys.bad(key, "either parameters, or an object of them for each type of layers")),
    }
}

/// The parameters of one object that is not nested.
fn one(keys: &Keys<'_>, layers: &Layers<'_>) -> Result<Parameters> {
    let share = share(keys, layers.defaults.share.is_some())?;
    let scaling = scaling(keys, layers, share)?;
    let known = |key: &&str| {
        KNOWN.contains(key)
            || matches!(scaling, Some(Scaling::Long { .. })) && FACTORS.contains(key)
            || *key == GROWTH && layers.defaults.own.contains(key)
    };
    if let Some(key) = keys.names().find(|key| !known(key)) {
        return Err(keys.bad(key, "nothing: rotary embedding with this key is not implemented"));
    }
    keys.refuse_unless("extrapolation_factor", Some(1.0))?;
    if !keys.flag("truncate", true)? {
        return Err(keys.bad("truncate", "true: a ramp between fractions of a pair is not implemented"));
    }
    Ok(Parameters { theta: theta(keys, "rope_theta")?, share, scaling, growth: growth(keys)? })
}

/// Growth of queries with their position.
fn growth(keys: &Keys<'_>) -> Result<Option<Growth>> {
    let Some(beta) = keys.optional_number(GROWTH, 0.0..=100.0)? else { return Ok(None) };
    let every = keys.size(ORIGINAL, MAX_CONTEXT as u64)? as u32;
    Ok(Some(Growth { beta: beta as f32, every }))
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
