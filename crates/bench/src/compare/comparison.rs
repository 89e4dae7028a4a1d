//! The result of a comparison: its figures and its JSON.

use super::arm::{Arm, Run};
use super::asked::Asked;
use super::baseline::Baseline;
use super::distribution::Time;
use super::figure::Figure;
use super::finding::{Finding, noise};
use super::headline::headline;
use super::number::{brief, signed};
use super::quiet::Others;
use super::regression::{Regression, interval};
use super::statistics::Median;
use super::timeline::Excerpt;
use mlx_serving_runtime::machine;
use serde_json::{Value, json};
use std::path::Path;

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Result of a comparison: all that was measured, as JSON, as a page and as a table.
#[derive(Debug)]
pub struct Comparison {
    pub(super) model: String,
    pub(super) asked: Asked,
    pub(super) repetitions: usize,
    /// Threads of the CPU device as configured; 0 for one a core.
    pub(super) threads: usize,
    /// Further settings: of the engine, and of the optimizations where an arm has them on.
    pub(super) settings: Value,
    pub(super) device: Value,
    pub(super) arms: Vec<Summary>,
    pub(super) findings: Vec<Finding>,
    pub(super) runs: Vec<Run>,
    pub(super) standing: Option<Standing>,
    pub(super) regression: Option<Regression>,
    pub(super) others: Others,
    pub(super) origin: Origin,
}

/// The plain arm's throughput against an earlier result's.
#[derive(Debug)]
pub(super) struct Standing {
    pub baseline: Baseline,
    /// Percent.
    pub change: Median,
}

impl Standing {
    /// The comparison in words, with the baseline's name as `file` has it.
    pub(super) fn sentence(&self, file: &str) -> String {
        let (b, change) = (&self.baseline, &self.change);
        let interval = if change.has_interval() { interval(change) } else { "no interval".into() };
        format!(
            "plain against {file}, of version {} with {} on: {}\u{a0}% ({interval}) of {} tok/s",
            b.build,
            if b.optimizations == "none" { "no optimization" } else { &b.optimizations },
            signed(change.median),
            brief(b.throughput.median),
        )
    }

    fn json(&self) -> Value {
        let Baseline { file, throughput, build, optimizations, .. } = &self.baseline;
        json!({
            "file": file, "throughput_tok_s": throughput.median, "throughput": throughput, "version": build,
            "optimizations": optimizations, "plain_change_percent": self.change.median, "change_percent": self.change,
        })
    }
}

/// Origin of a result: date, command and commit.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// When it was measured.
    pub at: jiff::Timestamp,
    /// The command line, as a shell takes it; empty if there was none.
    pub command: String,
    /// The commit that this was built from, or "unknown".
    pub commit: String,
}

impl Origin {
    /// Origin of a result that is measured now, with the words of its command line.
    pub(super) fn now(words: &[String]) -> Self {
        let mut words = words.to_vec();
        // Where the binary lies says nothing, and may say whose it is.
        if let Some(name) = words.first_mut() {
            *name = Path::new(name).file_name().unwrap_or_default().to_string_lossy().into_owned();
        }
        Self {
            at: jiff::Timestamp::now(),
            // Only a NUL cannot be quoted, and no argument has one.
            command: shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" ")),
            commit: env!("MLX_SERVING_COMMIT").to_owned(),
        }
    }

    /// The date, to the minute.
    pub(super) fn date(&self) -> String {
        self.at.strftime("%Y-%m-%d %H:%M UTC").to_string()
    }
}

/// One arm's medians.
#[derive(Debug)]
pub(super) struct Summary {
    pub arm: &'static str,
    /// The list that `--metal-opts` takes for it.
    pub metal_opts: String,
    pub figures: Vec<(&'static str, Option<Median>)>,
}

impl Comparison {
    /// The first arm whose tokens differ from the first run's, which is a defect.
    pub fn unequal(&self) -> Option<&'static str> {
        self.runs.iter().find(|r| r.all_outputs_hash != self.runs[0].all_outputs_hash).map(|r| r.arm)
    }

    /// A sentence about throughput that was lost beyond `max_regression`; `None` if that is not shown, or was not asked.
    pub fn past_limit(&self) -> Option<String> {
        self.regression.as_ref().and_then(Regression::past)
    }

    /// Copies and steps of the first run with the blit queue alone, or with it at all, that has any.
    pub(super) fn excerpts(&self) -> Option<(&'static str, &[Excerpt])> {
        let of = |arm: Option<&str>| {
            self.runs.iter().find(|run| !run.excerpts.is_empty() && arm.is_none_or(|arm| run.arm == arm))
        };
        of(Some(super::BLIT)).or_else(|| of(None)).map(|run| (run.arm, run.excerpts.as_slice()))
    }

    /// Median of a figure of the arm that has everything on, or of the only one.
    fn headline(&self, figure: Figure) -> Value {
        let arm = self.arms.last().and_then(|a| a.figures.iter().find(|(name, _)| *name == figure.name()));
        json!(arm.and_then(|(_, median)| median.map(|m| m.median)))
    }

    /// The device and its backend.
    pub(super) fn device_name(&self) -> String {
        let field = |key: &str| self.device[key].as_str().unwrap_or("unknown");
        format!("{} ({})", field("name"), field("backend"))
    }

    /// The whole result, which is what `bench compare --output` writes.
    pub fn json(&self) -> Value {
        let headline = headline(&self.findings, self.unequal());
        json!({
            "benchmark": "compare",
            "throughput_tok_s": self.headline(Figure::Throughput),
            "ttft_ms": self.headline(Figure::Ttft),
            "cold_ttft_ms": self.headline(Figure::ColdTtft),
            "device_utilization": self.headline(Figure::Utilization).as_f64().map(|percent| percent / 100.0),
            "outputs_equal": self.unequal().is_none(),
            "settings": self.all_settings(),
            "device": self.device,
            "machine": machine::describe(),
            "version": VERSION,
            "commit": self.origin.commit,
            "date": self.origin.date(),
            "command": self.origin.command,
            "headline": headline.title,
            "findings": self.findings,
            "noise": noise(&self.findings),
            "quiet": self.others.quiet(),
            "other_programs_cpu_share": self.others.0,
            "arms": self.arms.iter().map(|a| {
                let figures: serde_json::Map<String, Value> =
                    a.figures.iter().map(|(name, median)| ((*name).to_owned(), json!(median))).collect();
                let distributions: serde_json::Map<String, Value> = Time::ALL
                    .into_iter().map(|time| (time.name().to_owned(), json!(time.of(a.arm, &self.runs)))).collect();
                json!({ "arm": a.arm, "metal_opts": a.metal_opts, "figures": figures, "distributions": distributions })
            }).collect::<Vec<_>>(),
            "baseline": self.standing.as_ref().map(Standing::json),
            "regression": self.regression,
            "timeline": self.excerpts().map(|(arm, excerpts)| {
                let excerpts: Vec<Value> =
                    excerpts.iter().map(|e| json!({ "title": e.title, "intervals": e.spans() })).collect();
                json!({ "arm": arm, "excerpts": excerpts })
            }),
            "runs": self.runs,
        })
    }

    /// Plain against the memory pool as JSON: `baseline` and `with_pool` are the pair of runs with the median change, and
    /// `improvement_percent` is that change. `None` where the pool was not compared.
    pub fn memory_pool(&self) -> Option<Value> {
        let finding = self.findings.iter().find(|f| f.arm == "memory_pool")?;
        let total_tokens = self.runs[0].measured.total_tokens;
        let side = |tok_s: f64| {
            json!({
                "throughput_tok_s": tok_s, "total_tokens": total_tokens, "duration_s": total_tokens as f64 / tok_s,
                "questions": self.asked.requests(),
            })
        };
        Some(json!({
            "benchmark": "memory_pool",
            "baseline": side(finding.pair.plain),
            "with_pool": side(finding.pair.with),
            "improvement_percent": finding.pair.change,
            "interval": finding.interval,
            "target": finding.target,
            "outcome": finding.outcome,
            "outputs_equal": self.unequal().is_none(),
            "settings": self.all_settings(),
            "device": self.device,
            "machine": machine::describe(),
            "version": VERSION,
            "commit": self.origin.commit,
            "timestamp": format!("{:.0}", self.origin.at),
        }))
    }

    fn all_settings(&self) -> Value {
        let mut settings = json!({
            "model": self.model, "repetitions": self.repetitions, "threads": self.threads,
        });
        for more in [self.asked.json(), self.settings.clone()] {
            if let (Some(all), Value::Object(more)) = (settings.as_object_mut(), more) {
                all.extend(more);
            }
        }
        settings
    }
}

/// Values of a figure in an arm's runs.
pub(super) fn figures(arm: &Arm, figure: Figure, runs: &[Run]) -> Vec<f64> {
    runs.iter().filter(|r| r.arm == arm.name()).filter_map(|r| figure.of(r)).collect()
}

/// One arm's medians of some runs.
pub(super) fn summary(arm: &Arm, runs: &[Run]) -> Summary {
    let median = |figure: Figure| {
        let values = figures(arm, figure, runs);
        (figure.name(), (!values.is_empty()).then(|| Median::of(&values)))
    };
    Summary { arm: arm.name(), metal_opts: arm.list(), figures: Figure::ALL.into_iter().map(median).collect() }
}

#[cfg(test)]
mod tests {
    use crate::compare::samples::{comparison, extremes};

    #[test]
    fn the_pool_beside_plain_adds_up() {
        let result = comparison().memory_pool().unwrap();
        let number = |pointer: &str| result.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap();
        let (plain, with) = (number("/baseline/throughput_tok_s"), number("/with_pool/throughput_tok_s"));
        assert!((number("/improvement_percent") - 100.0 * (with / plain - 1.0)).abs() < 1e-9, "{result}");
        assert!((number("/baseline/duration_s") * plain - 512.0).abs() < 1e-6, "{result}");
        assert_eq!(result["timestamp"], "2026-11-30T12:00:00Z");
        assert_eq!(result["settings"]["model"], "rustbook-5m-4bit");
        let mut other = extremes();
        other.findings.retain(|f| f.arm != "memory_pool");
        assert_eq!(other.memory_pool(), None);
    }

    #[test]
    fn a_command_is_told_without_the_folder_of_its_program() {
        let words = ["/home/me/bin/bench".to_owned(), "a b".to_owned()];
        assert_eq!(super::Origin::now(&words).command, "bench 'a b'");
        assert_eq!(super::Origin::now(&[]).command, "");
    }
}
