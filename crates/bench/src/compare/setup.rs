//! Setups of measurements, of which only those that are alike can be compared; and fields of a result's JSON.

use super::asked::Asked;
use crate::error::BenchError;
use mlx_serving_runtime::{Config, Source, device, machine};
use serde_json::Value;

/// Share by which the memory of one machine may differ: kernels keep more or less of it for themselves.
const MEMORY: f64 = 0.05;

/// Text of a value that a device or a load does not have, null in JSON.
const NONE: &str = "none";

/// A field that is missing or wrong, by its path.
pub(super) type Missing = String;

/// All that must be alike for two results to be compared.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Setup {
    /// `None` where the system does not tell.
    memory_kib: Option<u64>,
    /// Names and values, in the order in which differences are told.
    values: Vec<(&'static str, String)>,
}

impl Setup {
    /// The setup of a comparison that is about to be made. Opens the device for as long as it takes to ask for its name.
    pub(super) fn here(config: &Config, model: &Source, asked: &Asked) -> Result<Self, BenchError> {
        let device = device::open(&config.engine)?;
        let info = device.info();
        let subject = [
            ("model", model.id()),
            ("device", info.name.clone()),
            ("backend", info.backend.to_owned()),
            ("instructions", info.instructions.unwrap_or(NONE).to_owned()),
            ("arithmetic", format!("{:?}", info.arithmetic).to_lowercase()),
            ("threads", info.units.to_string()),
        ];
        Self::of_machine(&machine::describe(), "").map(|machine| machine.and(subject).and(load(asked))).map_err(
            |missing| BenchError::setting("baseline", format!("this machine cannot be told from others: {missing}")),
        )
    }

    pub(super) fn of_machine(value: &Value, at: &str) -> Result<Self, Missing> {
        let field = |key: &str| format!("{at}/{key}");
        let memory_kib = match told(value, &field("memory"))? {
            None => None,
            Some(memory) => Some(
                memory
                    .split_whitespace()
                    .next()
                    .and_then(|kib| kib.parse().ok())
                    .ok_or_else(|| format!("its memory is {memory:?}"))?,
            ),
        };
        let value_of = |key: &'static str| -> Result<_, Missing> {
            Ok((key, told(value, &field(key))?.unwrap_or_else(|| "unknown".into())))
        };
        let values = ["cpu", "cores", "os", "arch"].into_iter().map(value_of).collect::<Result<_, Missing>>()?;
        Ok(Self { memory_kib, values })
    }

    pub(super) fn of_throughput(value: &Value) -> Result<Self, Missing> {
        let setting =
            |key: &'static str| -> Result<_, Missing> { Ok((key, known(value, &format!("/settings/{key}"))?)) };
        let values = ["model", "device", "backend", "instructions", "arithmetic", "threads"].into_iter().map(setting);
        let subject = values.collect::<Result<Vec<_>, Missing>>()?;
        // The seed chooses tokens, not their number. What other loads have is absent or null in this one.
        let other = |key: &str| -> Result<Option<String>, Missing> {
            match value.pointer(&format!("/settings/{key}")).filter(|value| !value.is_null()) {
                None => Ok(None),
                Some(value) => shown(value).map(Some).ok_or_else(|| wrong(&format!("/settings/{key}"))),
            }
        };
        let mut load = vec![("load", other("load")?.unwrap_or_else(|| "questions".into()))];
        for key in ["questions", "prompt_tokens", "max_tokens", "concurrency"] {
            load.push(setting(key)?);
        }
        for key in ["rate", "url"] {
            load.extend(other(key)?.map(|value| (key, value)));
        }
        Ok(Self::of_machine(value, "/machine")?.and(subject).and(load))
    }

    pub(super) fn of_compare(value: &Value) -> Result<Self, Missing> {
        let kind = text(value, "/settings/load")?;
        let (group, keys): (_, &[&'static str]) = match kind.as_str() {
            "questions" => ("questions", &["questions", "prompt_tokens", "max_tokens", "concurrency", "prefix_tokens"]),
            "conversations" => {
                ("conversations", &["conversations", "turns", "prompt_tokens", "max_tokens", "concurrency"])
            }
            other => return Err(format!("its settings.load is {other:?}")),
        };
        let from = |key: &'static str, path: String| -> Result<_, Missing> { Ok((key, known(value, &path)?)) };
        let mut values = vec![from("model", "/settings/model".into())?];
        for (key, field) in [
            ("device", "name"),
            ("backend", "backend"),
            ("instructions", "instructions"),
            ("arithmetic", "arithmetic"),
            ("threads", "threads"),
        ] {
            values.push(from(key, format!("/device/{field}"))?);
        }
        values.push(("load", kind.clone()));
        for &key in keys {
            values.push(from(key, format!("/settings/{group}/{key}"))?);
        }
        Ok(Self::of_machine(value, "/machine")?.and(values))
    }

    pub(super) fn and(mut self, values: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.values.extend(values);
        self
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
    }

    /// Differences from `here`, each with both values.
    pub(super) fn unlike(&self, here: &Setup) -> Vec<String> {
        let mut unlike = Vec::new();
        let differs = |name: &str, there: &str, here: &str| format!("{name} {there} there, {here} here");
        if !is_same_memory(self.memory_kib, here.memory_kib) {
            let gib = |kib: Option<u64>| {
                kib.map_or("unknown".into(), |kib| format!("{:.1} GiB", kib as f64 / f64::from(1 << 20)))
            };
            unlike.push(differs("memory", &gib(self.memory_kib), &gib(here.memory_kib)));
        }
        for (name, value) in &here.values {
            match self.value(name) {
                // A load of another kind has other numbers; a measurement of one load alone evicts no prefix.
                None => {}
                Some(there) if there == value => {}
                Some(there) => unlike.push(differs(name, there, value)),
            }
        }
        for (name, there) in self.values.iter().filter(|(name, _)| matches!(*name, "rate" | "url")) {
            unlike.push(differs(name, there, NONE));
        }
        unlike
    }
}

/// Name and numbers of a load.
pub(super) fn load(asked: &Asked) -> Vec<(&'static str, String)> {
    let mut values = vec![("load", asked.kind().name().to_owned())];
    let numbers: &[(&'static str, usize)] = &match asked {
        Asked::Questions(q) => [
            ("questions", q.questions),
            ("prompt_tokens", q.prompt_tokens),
            ("max_tokens", q.max_tokens),
            ("concurrency", q.concurrency),
            ("prefix_tokens", q.prefix_tokens),
        ],
        Asked::Conversations(c) => [
            ("conversations", c.conversations),
            ("turns", c.turns),
            ("prompt_tokens", c.prompt_tokens),
            ("max_tokens", c.max_tokens),
            ("concurrency", c.concurrency),
        ],
    };
    values.extend(numbers.iter().map(|(name, number)| (*name, number.to_string())));
    values
}

fn is_same_memory(one: Option<u64>, other: Option<u64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.abs_diff(other) as f64 <= MEMORY * one.max(other) as f64,
        (one, other) => one == other,
    }
}

/// The value at a path; null, which a system that does not tell it has, is `None`.
fn told(value: &Value, path: &str) -> Result<Option<String>, Missing> {
    match value.pointer(path) {
        None => Err(missing(path)),
        Some(Value::Null) => Ok(None),
        Some(found) => shown(found).map(Some).ok_or_else(|| wrong(path)),
    }
}

fn known(value: &Value, path: &str) -> Result<String, Missing> {
    told(value, path).map(|value| value.unwrap_or_else(|| NONE.into()))
}

pub(super) fn text(value: &Value, path: &str) -> Result<String, Missing> {
    let found = value.pointer(path).ok_or_else(|| missing(path))?;
    found.as_str().map(str::to_owned).ok_or_else(|| wrong(path))
}

pub(super) fn number(value: &Value, path: &str) -> Result<f64, Missing> {
    let found = value.pointer(path).ok_or_else(|| missing(path))?;
    found.as_f64().ok_or_else(|| wrong(path))
}

/// A number or a text.
fn shown(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

pub(super) fn missing(path: &str) -> Missing {
    format!("it has no {}", dotted(path))
}

fn wrong(path: &str) -> Missing {
    format!("its {} is neither text nor number, or not the one that it has to be", dotted(path))
}

pub(super) fn dotted(path: &str) -> String {
    path.trim_start_matches('/').replace('/', ".").replace("~1", "/")
}
