//! `bench compare`: each optimization alone, then all together, each run between two plain runs.

mod arm;
mod finding;
mod report;
mod statistics;

use crate::args::Compare;
use crate::commands::workload::Load;
use crate::context::{Context, write_file};
use crate::failure::Failure;
use crate::{load, machine};
use arm::{Arm, BLIT, Questions, Run};
use finding::{Figure, Finding, Outcome, Sandwich, findings, noise};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};
use statistics::Median;
use std::io::{IsTerminal, Write};
use std::path::Path;

/// All that was measured, for the report and the file.
struct Comparison {
    model: String,
    questions: Questions,
    repetitions: usize,
    /// Threads of the CPU device as configured; 0 for one a core.
    threads: usize,
    device: Value,
    arms: Vec<Summary>,
    findings: Vec<Finding>,
    runs: Vec<Run>,
    /// The plain arm's throughput against an earlier record's: file, its figure, change in percent.
    baseline: Option<(String, f64, f64)>,
}

/// One arm's medians.
#[derive(Debug, Serialize)]
struct Summary {
    arm: &'static str,
    figures: Vec<(&'static str, Option<Median>)>,
}

pub(crate) fn run(context: &Context, args: &Compare) -> Result<(), Failure> {
    if args.repetitions == 0 {
        return Err(Failure::usage(
            "--repetitions is 0; it must be at least 1, and 5 for intervals that mean something",
        ));
    }
    let arms = arms(context, &args.optimizations)?;
    let baseline = args.baseline.as_deref().map(throughput_of).transpose()?;
    let questions = Questions {
        load: Load {
            questions: args.questions,
            prompt_tokens: args.prompt_tokens,
            max_tokens: args.max_tokens,
            concurrency: args.concurrency,
        },
        prefix_tokens: args.prefix_tokens,
    };
    let model = args.model.model.as_deref();
    let (_, name) = load::resolve(model)?;
    let total = args.repetitions * arms.len() * 2 + 1;
    let bar = bar(total);
    bar.set_message("warming up");
    // Warms file cache and pages; does not count.
    Run::of(&Arm::Plain, context, model, &questions)?;
    let mut runs = Vec::with_capacity(total);
    let mut once = |arm: &Arm| -> Result<(), Failure> {
        bar.set_message(arm.name());
        let run = Run::of(arm, context, model, &questions)?;
        if bar.is_hidden() {
            tracing::info!(
                run = runs.len() + 1,
                of = total,
                arm = arm.name(),
                tok_s = run.measured.throughput_tok_s,
                "measured"
            );
        }
        runs.push(run);
        bar.inc(1);
        Ok(())
    };
    once(&Arm::Plain)?;
    for _ in 0..args.repetitions {
        for arm in &arms {
            once(arm)?;
            once(&Arm::Plain)?;
        }
    }
    bar.finish_and_clear();
    let order: Vec<&Arm> = (0..args.repetitions).flat_map(|_| &arms).collect();
    let sandwiches: Vec<Sandwich<'_>> = (order.iter().enumerate())
        .map(|(i, arm)| Sandwich { arm, before: &runs[2 * i], run: &runs[2 * i + 1], after: &runs[2 * i + 2] })
        .collect();
    let findings = arms.iter().flat_map(|arm| findings(arm, &sandwiches)).collect();
    let comparison = Comparison {
        model: name,
        questions,
        repetitions: args.repetitions,
        threads: context.config.engine.threads,
        device: serde_json::to_value(&runs[0].stats.device).map_err(Failure::failed)?,
        arms: std::iter::once(&Arm::Plain).chain(&arms).map(|arm| summary(arm, &runs)).collect(),
        findings,
        baseline: baseline.map(|(file, before)| {
            let plain = figures(&Arm::Plain, Figure::Throughput, &runs);
            (file, before, 100.0 * (Median::of(&plain).median / before - 1.0))
        }),
        runs,
    };
    comparison.tell(args)?;
    match comparison.unequal() {
        None => Ok(()),
        Some(arm) => Err(Failure::failed(format!(
            "the outputs of {arm} differ from those of plain: an optimization changed an answer, which is a defect; please report it with this result"
        ))),
    }
}

/// The arms that a list names, in the order of running; direct allocation beside the pool, synchronous spilling beside the blit queue.
fn arms(context: &Context, list: &str) -> Result<Vec<Arm>, Failure> {
    let mut options = context.config.metal_optimizations.clone();
    options.select(list).map_err(|message| Failure::usage(format!("--optimizations: {message}")))?;
    let active = options.active();
    if active.is_empty() {
        return Err(Failure::usage(
            "--optimizations names none; give all, or some of memory_pool,blit_queue,command_buffer_ring",
        ));
    }
    let mut arms = Vec::new();
    if active.contains(&"memory_pool") {
        arms.push(Arm::Direct);
    }
    if active.contains(&BLIT) {
        arms.push(Arm::SynchronousSpill);
    }
    arms.extend(active.iter().map(|name| Arm::One(name)));
    if active.len() > 1 {
        arms.push(Arm::All(active));
    }
    Ok(arms)
}

/// `throughput_tok_s` of an earlier result.
fn throughput_of(path: &Path) -> Result<(String, f64), Failure> {
    let failed = |why: String| Failure::usage(format!("--baseline {}: {why}", path.display()));
    let text = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let value: Value = serde_json::from_slice(&text).map_err(|e| failed(format!("not JSON: {e}")))?;
    match value["throughput_tok_s"].as_f64() {
        Some(figure) if figure > 0.0 => Ok((path.display().to_string(), figure)),
        _ => Err(failed("it has no throughput_tok_s above 0; write it with bench throughput --output".into())),
    }
}

fn figures(arm: &Arm, figure: Figure, runs: &[Run]) -> Vec<f64> {
    runs.iter().filter(|r| r.arm == arm.name()).filter_map(|r| figure.of(r)).collect()
}

fn summary(arm: &Arm, runs: &[Run]) -> Summary {
    let median = |figure: Figure| {
        let values = figures(arm, figure, runs);
        (figure.name(), (!values.is_empty()).then(|| Median::of(&values)))
    };
    Summary { arm: arm.name(), figures: Figure::ALL.into_iter().map(median).collect() }
}

fn bar(total: usize) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(total as u64), target);
    if let Ok(style) = ProgressStyle::with_template("run {pos}/{len} [{bar:30.cyan}] {msg}, {eta} to go") {
        bar.set_style(style);
    }
    bar
}

impl Comparison {
    /// The first arm whose tokens differ from the first run's.
    fn unequal(&self) -> Option<&'static str> {
        self.runs.iter().find(|r| r.all_outputs_hash != self.runs[0].all_outputs_hash).map(|r| r.arm)
    }

    /// Median of a figure of the arm that has everything on, or of the only one.
    fn headline(&self, figure: Figure) -> Value {
        let arm = self.arms.last().and_then(|a| a.figures.iter().find(|(name, _)| *name == figure.name()));
        json!(arm.and_then(|(_, median)| median.map(|m| m.median)))
    }

    fn json(&self) -> Value {
        json!({
            "benchmark": "compare",
            "throughput_tok_s": self.headline(Figure::Throughput),
            "ttft_ms": self.headline(Figure::Ttft),
            "cold_ttft_ms": self.headline(Figure::ColdTtft),
            "device_utilization": self.headline(Figure::Utilization).as_f64().map(|percent| percent / 100.0),
            "outputs_equal": self.unequal().is_none(),
            "settings": {
                "model": self.model, "repetitions": self.repetitions, "questions": self.questions, "threads": self.threads,
            },
            "device": self.device,
            "machine": machine::describe(),
            "version": env!("CARGO_PKG_VERSION"),
            "findings": self.findings,
            "noise": noise(&self.findings),
            "arms": self.arms.iter().map(|a| {
                let figures: serde_json::Map<String, Value> =
                    a.figures.iter().map(|(name, median)| ((*name).to_owned(), json!(median))).collect();
                json!({ "arm": a.arm, "figures": figures })
            }).collect::<Vec<_>>(),
            "baseline": self.baseline.as_ref().map(|(file, before, change)| {
                json!({ "file": file, "throughput_tok_s": before, "plain_change_percent": change })
            }),
            "runs": self.runs,
        })
    }

    /// Files first, then the terminal.
    fn tell(&self, args: &Compare) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(&self.json()).map_err(Failure::failed)?;
        if let Some(path) = &args.output {
            write_file(path, text.as_bytes())?;
            let page = path.with_extension("html");
            write_file(&page, report::html(self).map_err(Failure::failed)?.as_bytes())?;
            tracing::info!("wrote {} and {}", path.display(), page.display());
        }
        let mut out = anstream::stdout();
        if args.json { writeln!(out, "{text}") } else { write!(out, "{}", self.table()) }.map_err(Failure::output)
    }

    fn table(&self) -> String {
        let (bold, green, yellow) = (
            anstyle::Style::new().bold(),
            anstyle::Style::new().fg_color(Some(anstyle::AnsiColor::Green.into())),
            anstyle::Style::new().fg_color(Some(anstyle::AnsiColor::Yellow.into())),
        );
        let mut text = format!(
            "{bold}{:20} {:37} {:>9} {:>9}  {:>8} {:19} {}{bold:#}\n",
            "with", "figure", "plain", "with it", "change", " (interval)", "aim"
        );
        for f in &self.findings {
            let unit = if f.points { "pt" } else { "%" };
            let interval = format!("({:+.1} to {:+.1})", f.interval.low, f.interval.high);
            let mark = match f.outcome {
                Some(Outcome::Reached) => format!("{green}reached{green:#}"),
                Some(other) => format!("{yellow}{}{yellow:#}", other.name()),
                None => String::new(),
            };
            text += &format!(
                "{:20} {:37} {:9.2} {:9.2}  {:+6.1} {unit:2} {interval:18} {}  {mark}\n",
                f.arm, f.figure, f.pair.plain, f.pair.with, f.pair.change, f.target
            );
        }
        text += &format!("\n{}\n", finding::READING);
        for f in self.findings.iter().filter(|f| f.reason.is_some()) {
            text += &format!("\n{}, {}: {}.", f.arm, f.figure, f.reason.as_deref().unwrap_or_default());
        }
        if let Some(noise) = noise(&self.findings) {
            text += &format!("\n\n{yellow}Noise{yellow:#}: {noise}.");
        }
        let equal = match self.unequal() {
            None => format!("{green}equal{green:#} in all {} runs", self.runs.len()),
            Some(arm) => format!("{yellow}different{yellow:#} with {arm}"),
        };
        text += &format!("\n\nOutput tokens: {equal}.\n");
        if let Some((file, before, change)) = &self.baseline {
            text += &format!("Plain against {file}: {change:+.1} % of {before:.2} tok/s.\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn context() -> Context {
        Context::new(Config::default())
    }

    #[test]
    fn all_runs_each_alone_and_then_together() {
        let names = |list| arms(&context(), list).unwrap().iter().map(Arm::name).collect::<Vec<_>>();
        let each = [
            "direct allocation",
            "synchronous spilling",
            "memory_pool",
            "blit_queue",
            "command_buffer_ring",
            "all together",
        ];
        assert_eq!(names("all"), each);
        assert_eq!(names("command_buffer_ring"), ["command_buffer_ring"]);
        assert_eq!(names("memory_pool,blit_queue").last(), Some(&"all together"));
    }

    #[test]
    fn a_list_without_optimizations_is_wrong_usage() {
        for list in ["none", "turbo", ""] {
            assert!(matches!(arms(&context(), list), Err(Failure::Usage(_))), "{list}");
        }
    }

    #[test]
    fn a_baseline_needs_a_throughput() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("b.json");
        for bad in ["", "{}", r#"{"throughput_tok_s": 0}"#, r#"{"throughput_tok_s": "9"}"#] {
            std::fs::write(&file, bad).unwrap();
            assert!(matches!(throughput_of(&file), Err(Failure::Usage(_))), "{bad}");
        }
        std::fs::write(&file, r#"{"throughput_tok_s": 84.96}"#).unwrap();
        assert_eq!(throughput_of(&file).unwrap().1, 84.96);
    }
}
