//! Exposition of metrics: one family a name, over all models, in OpenMetrics or in Prometheus' older text format.
//!
//! Whoever counts keeps [`Counter`]s, [`Gauge`]s and [`Histogram`]s, and adds them to [`Families`] when they are asked for.
#![forbid(unsafe_code)]

mod format;
mod process;

pub use format::Format;
pub use process::process;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;

/// Names and values that tell the samples of a family apart.
type Labels = Vec<(&'static str, String)>;

/// Families in the order in which they were first added.
#[derive(Debug, Default)]
pub struct Families(Vec<Family>);

#[derive(Debug)]
struct Family {
    /// Name without a counter's `_total`.
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    samples: Vec<(Labels, Value)>,
}

#[derive(Debug)]
enum Value {
    Counter(Number),
    Gauge(Number),
    Histogram(Histogram),
}

/// A sample's value. Whole numbers are printed as such.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A whole number.
    Whole(u64),
    /// A number that may have a fraction.
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Number::Whole(value)
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Number::Whole(value as u64)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Number::Real(value)
    }
}

impl Families {
    /// Adds samples that have these labels, besides their own.
    pub fn labeled(&mut self, labels: &[(&'static str, &str)]) -> Labeled<'_> {
        Labeled { labels: labels.iter().map(|&(name, value)| (name, value.to_owned())).collect(), families: self }
    }

    fn add(&mut self, name: &'static str, help: &'static str, kind: MetricType, labels: Labels, value: Value) {
        debug_assert!(help.ends_with('.') && !help.contains(['\n', '\\', '"']), "{name}: {help}");
        let family = match self.0.iter().position(|family| family.name == name) {
            Some(place) => &mut self.0[place],
            None => self.0.push_mut(Family { name, help, kind, samples: Vec::new() }),
        };
        debug_assert!(!family.samples.iter().any(|(other, _)| *other == labels), "{name}{labels:?} was added twice");
        family.samples.push((labels, value));
    }

    /// The text.
    ///
    /// # Errors
    /// None that a string could cause.
    pub fn write(self, format: Format) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Exposition { families: self.0, format }));
        let mut text = String::new();
        match format {
            Format::OpenMetrics => text::encode(&mut text, &registry)?,
            Format::Prometheus => text::encode_registry(&mut text, &registry)?,
        }
        Ok(text)
    }
}

/// Adds samples with common labels. A help text is a sentence with its full stop; what is no ratio or count has its unit in its
/// name.
#[derive(Debug)]
pub struct Labeled<'a> {
    families: &'a mut Families,
    labels: Labels,
}

impl Labeled<'_> {
    /// Adds a number that only grows. The format adds `_total` to the name.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: impl Into<Number>) {
        self.families.add(name, help, MetricType::Counter, self.labels.clone(), Value::Counter(value.into()));
    }

    /// Adds a number that rises and falls.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: impl Into<Number>) {
        self.families.add(name, help, MetricType::Gauge, self.labels.clone(), Value::Gauge(value.into()));
    }

    /// Adds a distribution.
    pub fn histogram(&mut self, name: &'static str, help: &'static str, histogram: &Histogram) {
        let value = Value::Histogram(histogram.clone());
        self.families.add(name, help, MetricType::Histogram, self.labels.clone(), value);
    }

    /// Adds `labels` to the common ones, for the samples that are added through the result.
    pub fn with(&mut self, labels: &[(&'static str, &str)]) -> Labeled<'_> {
        let more = labels.iter().map(|&(name, value)| (name, value.to_owned()));
        Labeled { families: self.families, labels: self.labels.iter().cloned().chain(more).collect() }
    }
}

/// Families as a collector, which [`Registry`] hands an encoder to.
#[derive(Debug)]
struct Exposition {
    families: Vec<Family>,
    format: Format,
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.families.iter().try_for_each(|family| family.encode(&mut encoder, self.format))
    }
}

impl Family {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>, format: Format) -> fmt::Result {
        let suffix = match (format, self.kind) {
            (Format::Prometheus, MetricType::Counter) => "_total",
            _ => "",
        };
        let name = format!("{}{suffix}", self.name);
        let mut family = encoder.encode_descriptor(&name, self.help, None, self.kind)?;
        match &self.samples[..] {
            [(labels, value)] if labels.is_empty() => value.encode(family, format),
            samples => {
                samples.iter().try_for_each(|(labels, value)| value.encode(family.encode_family(labels)?, format))
            }
        }
    }
}

impl Value {
    fn encode(&self, mut encoder: MetricEncoder<'_>, format: Format) -> fmt::Result {
        match (self, format) {
            (Value::Counter(value), Format::OpenMetrics) => match value {
                Number::Whole(value) => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
                Number::Real(value) => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
            },
            // The older format has the suffix in the family's name, so a counter's sample is a name and a number like a gauge's.
            (Value::Counter(value) | Value::Gauge(value), _) => match value {
                Number::Whole(value) => encoder.encode_gauge(value),
                Number::Real(value) => encoder.encode_gauge(value),
            },
            (Value::Histogram(histogram), _) => histogram.encode(encoder),
        }
    }
}

/// Bounds of 1, 2 and 5 times powers of ten up to `most`, as vLLM has them for lengths.
pub fn lengths(most: usize) -> Vec<f64> {
    let powers = std::iter::successors(Some(1usize), |power| power.checked_mul(10));
    let bounds = powers.flat_map(|power| [1, 2, 5].map(|digit: usize| digit.saturating_mul(power)));
    bounds.take_while(|&bound| bound <= most).map(|bound| bound as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_models() -> Families {
        let mut families = Families::default();
        families.labeled(&[]).gauge("up", "It runs.", 1u64);
        for model in ["a", "b\"\\\n"] {
            let mut labeled = families.labeled(&[("model_name", model)]);
            labeled.counter("tokens", "Tokens.", 3u64);
            labeled.with(&[("reason", "stop")]).counter("ends", "Ends.", 1.5);
            labeled.gauge("share", "Share.", 0.25);
            let seconds = Histogram::new([0.5]);
            seconds.observe(0.25);
            labeled.histogram("wait_seconds", "Waits.", &seconds);
        }
        families
    }

    #[test]
    fn a_family_is_told_once_over_all_models() {
        let model = |name: &str| {
            [
                format!("tokens_total{{model_name=\"{name}\"}} 3"),
                format!("ends_total{{model_name=\"{name}\",reason=\"stop\"}} 1.5"),
                format!("share{{model_name=\"{name}\"}} 0.25"),
                format!(
                    "wait_seconds_sum{{model_name=\"{name}\"}} 0.25\nwait_seconds_count{{model_name=\"{name}\"}} 1\n\
                     wait_seconds_bucket{{le=\"0.5\",model_name=\"{name}\"}} 1\n\
                     wait_seconds_bucket{{le=\"+Inf\",model_name=\"{name}\"}} 1"
                ),
            ]
        };
        let (a, b) = (model("a"), model("b\\\"\\\\\\n"));
        let expected = |total: &str| {
            format!(
                "# HELP up It runs.\n# TYPE up gauge\nup 1\n\
                 # HELP tokens{total} Tokens.\n# TYPE tokens{total} counter\n{}\n{}\n\
                 # HELP ends{total} Ends.\n# TYPE ends{total} counter\n{}\n{}\n\
                 # HELP share Share.\n# TYPE share gauge\n{}\n{}\n\
                 # HELP wait_seconds Waits.\n# TYPE wait_seconds histogram\n{}\n{}\n",
                a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]
            )
        };
        assert_eq!(two_models().write(Format::OpenMetrics).unwrap(), expected("") + "# EOF\n");
        assert_eq!(two_models().write(Format::Prometheus).unwrap(), expected("_total"));
    }

    #[test]
    fn bounds_of_lengths_end_at_the_longest() {
        assert_eq!(lengths(100), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(lengths(4), [1.0, 2.0]);
        assert!(lengths(0).is_empty() && lengths(usize::MAX).len() < 64);
    }
}
