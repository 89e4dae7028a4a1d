//! `bench compare`: each optimization alone, then all together, each run between two plain runs.

mod arm;
mod figure;
mod finding;
mod headline;
mod number;
mod plot;
mod report;
#[cfg(test)]
mod samples;
mod statistics;
mod table;

use crate::args::Compare;
use crate::commands::workload::Load;
use crate::context::{Context, check_file, write_file};
use crate::failure::Failure;
use crate::progress::Bar;
use crate::{load, machine};
use arm::{Arm, BLIT, Questions, Run};
use figure::Figure;
use finding::{Finding, Sandwich, findings, noise};
use indicatif::HumanDuration;
use serde::Serialize;
use serde_json::{Value, json};
use statistics::Median;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The most that `engine.kv_cache_tokens` may be.
const MAX_KV_TOKENS: usize = 16_777_216;
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// All that was measured, for the report and the file.
struct Comparison {
    model: String,
    questions: Questions,
    repetitions: usize,
    /// Threads of the CPU device as configured; 0 for one a core.
    threads: usize,
    /// Further settings: of the engine, and of the optimizations where an arm has them on.
    settings: Value,
    device: Value,
    arms: Vec<Summary>,
    findings: Vec<Finding>,
    runs: Vec<Run>,
    /// The plain arm's throughput against an earlier record's: file, its figure, change in percent.
    baseline: Option<(String, f64, f64)>,
    origin: Origin,
}

/// Origin of a result: date, command and commit.
#[derive(Debug, Clone, Serialize)]
struct Origin {
    /// When it was measured, to the minute.
    date: String,
    /// The command line, as a shell takes it.
    command: String,
    /// The commit that the binary was built from, or "unknown".
    commit: String,
}

impl Origin {
    fn now() -> Self {
        let mut words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        // Where the binary lies says nothing, and may say whose it is.
        if let Some(name) = words.first_mut() {
            *name = Path::new(name).file_name().unwrap_or_default().to_string_lossy().into_owned();
        }
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            // Only a NUL cannot be quoted, and no argument has one.
            command: shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" ")),
            commit: env!("MLX_SERVING_COMMIT").to_owned(),
        }
    }
}

/// One arm's medians.
#[derive(Debug, Serialize)]
struct Summary {
    arm: &'static str,
    /// The list that `--metal-opts` takes for it.
    metal_opts: String,
    figures: Vec<(&'static str, Option<Median>)>,
}

pub(crate) fn run(context: &Context, args: &Compare) -> Result<(), Failure> {
    let arms = arms(context, &args.optimizations)?;
    let baseline = args.baseline.as_deref().map(throughput_of).transpose()?;
    let questions = Questions {
        load: Load {
            questions: args.questions,
            prompt_tokens: args.load.prompt_tokens,
            max_tokens: args.load.max_tokens,
            concurrency: args.load.concurrency,
        },
        prefix_tokens: args.prefix_tokens,
    };
    if questions.kv_tokens() > MAX_KV_TOKENS {
        return Err(Failure::usage(format!(
            "--concurrency {} times --prompt-tokens {} and --max-tokens {} asks for a KV cache of {} tokens, and the most is {MAX_KV_TOKENS}",
            args.load.concurrency,
            args.load.prompt_tokens,
            args.load.max_tokens,
            questions.kv_tokens()
        )));
    }
    let files = args.output.as_deref().map(files).transpose()?;
    let model = args.model.model.as_deref();
    let (_, name) = load::resolve(model)?;
    let (total, origin) = (args.repetitions * arms.len() * 2 + 1, Origin::now());
    let bar = Bar::runs(total);
    bar.say(&format!(
        "{total} runs of {name}: {} arms, {} times each, between plain runs",
        arms.len(),
        args.repetitions
    ));
    bar.doing("warming up");
    let start = Instant::now();
    // Warms file cache and pages; does not count.
    Run::of(&Arm::Plain, context, model, &questions)?;
    bar.begin();
    bar.say(&estimate(start.elapsed(), total));
    let mut runs = Vec::with_capacity(total);
    let mut once = |arm: &Arm| -> Result<(), Failure> {
        bar.doing(arm.name());
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
        bar.done();
        Ok(())
    };
    once(&Arm::Plain)?;
    for _ in 0..args.repetitions {
        for arm in &arms {
            once(arm)?;
            once(&Arm::Plain)?;
        }
    }
    bar.finish();
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
        settings: json!({
            "optimizations": args.optimizations,
            "device": context.config.engine.device,
            "arithmetic": context.config.engine.arithmetic,
            "max_batch_rows": context.config.engine.max_batch_rows,
            "kv_cache_tokens": questions.kv_tokens(),
            "metal_optimizations": context.config.metal_optimizations,
        }),
        device: serde_json::to_value(&runs[0].stats.device).map_err(Failure::failed)?,
        arms: std::iter::once(&Arm::Plain).chain(&arms).map(|arm| summary(arm, &runs)).collect(),
        findings,
        baseline: baseline.map(|(file, before)| {
            let plain = figures(&Arm::Plain, Figure::Throughput, &runs);
            (file, before, 100.0 * (Median::of(&plain).median / before - 1.0))
        }),
        origin,
        runs,
    };
    let told = comparison.tell(args.json, files.as_ref());
    match (told, comparison.unequal()) {
        (told, None) => told,
        (Err(Failure::Silent), _) => Err(Failure::Silent),
        (told, Some(arm)) => {
            if let Err(error) = told {
                tracing::error!("{error}");
            }
            Err(Failure::failed(format!(
                "the outputs of {arm} differ from those of plain: an optimization changed an answer, which is a defect; please report it with this result"
            )))
        }
    }
}

/// The files of a result, its JSON and its report, if they can be written.
fn files(output: &Path) -> Result<(PathBuf, PathBuf), Failure> {
    if output.extension().is_some_and(|end| end.eq_ignore_ascii_case("html")) {
        return Err(Failure::usage(format!(
            "--output {} names the JSON, and the report is written beside it as HTML: name {}",
            output.display(),
            output.with_extension("json").display()
        )));
    }
    // A folder has no name beside it that would do.
    check_file(output)?;
    let page = output.with_extension("html");
    check_file(&page)?;
    Ok((output.to_owned(), page))
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
    Summary { arm: arm.name(), metal_opts: arm.list(), figures: Figure::ALL.into_iter().map(median).collect() }
}

/// Estimate of the time that all runs take, by that of the first.
fn estimate(warm_up: Duration, runs: usize) -> String {
    let all = HumanDuration(warm_up * runs as u32);
    format!("about {all}: {runs} times the {:.1} s of the warm-up, which was a plain run", warm_up.as_secs_f64())
}

/// Columns of standard output; as many as the table needs where it is no terminal.
fn width() -> usize {
    terminal_size::terminal_size_of(std::io::stdout())
        .map_or(table::WIDTH, |(terminal_size::Width(width), _)| width.into())
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

    /// The device and its backend.
    fn device_name(&self) -> String {
        let field = |key: &str| self.device[key].as_str().unwrap_or("unknown");
        format!("{} ({})", field("name"), field("backend"))
    }

    fn json(&self) -> Value {
        let mut settings = json!({
            "model": self.model, "repetitions": self.repetitions, "questions": self.questions, "threads": self.threads,
        });
        if let (Some(all), Some(more)) = (settings.as_object_mut(), self.settings.as_object()) {
            all.extend(more.clone());
        }
        let headline = headline::headline(&self.findings, self.unequal());
        json!({
            "benchmark": "compare",
            "throughput_tok_s": self.headline(Figure::Throughput),
            "ttft_ms": self.headline(Figure::Ttft),
            "cold_ttft_ms": self.headline(Figure::ColdTtft),
            "device_utilization": self.headline(Figure::Utilization).as_f64().map(|percent| percent / 100.0),
            "outputs_equal": self.unequal().is_none(),
            "settings": settings,
            "device": self.device,
            "machine": machine::describe(),
            "version": VERSION,
            "commit": self.origin.commit,
            "date": self.origin.date,
            "command": self.origin.command,
            "headline": headline.title,
            "findings": self.findings,
            "noise": noise(&self.findings),
            "arms": self.arms.iter().map(|a| {
                let figures: serde_json::Map<String, Value> =
                    a.figures.iter().map(|(name, median)| ((*name).to_owned(), json!(median))).collect();
                json!({ "arm": a.arm, "metal_opts": a.metal_opts, "figures": figures })
            }).collect::<Vec<_>>(),
            "baseline": self.baseline.as_ref().map(|(file, before, change)| {
                json!({ "file": file, "throughput_tok_s": before, "plain_change_percent": change })
            }),
            "runs": self.runs,
        })
    }

    /// Files first, then the terminal, which is told even if the files cannot be written.
    fn tell(&self, json: bool, files: Option<&(PathBuf, PathBuf)>) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(&self.json()).map_err(Failure::failed)?;
        let written = files.map_or(Ok(()), |(path, page)| self.write(&text, path, page));
        let mut out = anstream::stdout();
        if json {
            writeln!(out, "{text}")
        } else {
            write!(out, "{}", table::table(self, width()).map_err(Failure::failed)?)
        }
        .map_err(Failure::output)?;
        written
    }

    fn write(&self, json: &str, path: &Path, page: &Path) -> Result<(), Failure> {
        write_file(path, json.as_bytes())?;
        write_file(page, report::html(self).map_err(Failure::failed)?.as_bytes())?;
        tracing::info!("wrote {} and {}", path.display(), page.display());
        Ok(())
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
    fn files_that_cannot_be_written_are_wrong_usage() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for bad in [at("x.html"), at("x.HTML"), dir.path().to_owned(), PathBuf::from("/dev/null/x.json")] {
            assert!(matches!(files(&bad), Err(Failure::Usage(_))), "{}", bad.display());
        }
        std::fs::create_dir(at("y.html")).unwrap();
        assert!(matches!(files(&at("y.json")), Err(Failure::Usage(_))), "the report is a folder");
        std::fs::write(at("z.json"), "earlier").unwrap();
        assert_eq!(files(&at("z.json")).unwrap(), (at("z.json"), at("z.html")));
        assert_eq!(std::fs::read_to_string(at("z.json")).unwrap(), "earlier");
        assert!(!at("z.html").exists(), "nothing is left of the check");
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
