//! The engine's own measurements, for benchmark programs in other languages.

use crate::args::Args;
use crate::error::{Code, Error};
use mlx_serving_bench::{self as bench, BenchError, Compare, Load, Progress};
use mlx_serving_runtime::{Config, Progress as Opening, Source};
use serde_json::{Value, json};

/// Receiver of lines that say what a benchmark is doing.
pub type Tell<'a> = &'a mut dyn FnMut(&str);

/// Speed of one model under a fixed load: what `mlx-serving bench throughput --output` writes. Arguments: `model`, the bundled one if it is
/// left out; `config`, as an engine's options; `questions`, `prompt_tokens`, `max_tokens`, `concurrency`. Blocks for as long as it takes.
///
/// # Errors
/// An argument that is not taken; the model cannot be opened; a request fails.
pub fn throughput(args: &Value, tell: Tell<'_>) -> Result<Value, Error> {
    let mut args = Args::of(args)?;
    let (model, config) = subject(&mut args)?;
    let load = load(&mut args, Load::default())?;
    args.finish()?;
    let measured = bench::throughput(&config, &model, &load, &mut |progress| show(progress, tell))?;
    serde_json::to_value(&measured).map_err(unwritten)
}

/// Each optimization against plain runs. Gives `result`, what `mlx-serving bench compare --output` writes; `page`, its report as HTML;
/// `table`, its table for a terminal; `memory_pool`, plain against the pool alone, where that was measured. Arguments: `model` and `config` as
/// [`throughput`]'s; `optimizations`, `repetitions`, `questions`, `prompt_tokens`, `max_tokens`, `concurrency`, `prefix_tokens`, `baseline`,
/// `command`. Blocks for as long as it takes.
///
/// # Errors
/// As [`throughput`]'s, and an optimization that changed an answer.
pub fn compare(args: &Value, tell: Tell<'_>) -> Result<Value, Error> {
    let mut args = Args::of(args)?;
    let (model, config) = subject(&mut args)?;
    let default = Compare::default();
    let Compare { questions, prompt_tokens, max_tokens, concurrency, .. } = default;
    let load = load(&mut args, Load { questions, prompt_tokens, max_tokens, concurrency })?;
    let settings = Compare {
        optimizations: args.text("optimizations")?.map_or(default.optimizations, str::to_owned),
        repetitions: count(&mut args, "repetitions", default.repetitions, Compare::MAX_REPETITIONS)?,
        questions: load.questions,
        prompt_tokens: load.prompt_tokens,
        max_tokens: load.max_tokens,
        concurrency: load.concurrency,
        prefix_tokens: count(&mut args, "prefix_tokens", default.prefix_tokens, Load::MAX_TOKENS)?,
        baseline: args.text("baseline")?.map(Into::into),
        command: args.texts("command")?,
    };
    args.finish()?;
    let comparison = bench::compare(&config, &model, &settings, &mut |progress| show(progress, tell))?;
    if let Some(arm) = comparison.unequal() {
        let message = format!(
            "the outputs of {arm} differ from those of plain: an optimization changed an answer; please report it"
        );
        return Err(Error::new(Code::Internal, message));
    }
    Ok(json!({
        "result": comparison.json(),
        "page": comparison.html().map_err(unwritten)?,
        "table": comparison.table(bench::Comparison::COLUMNS).map_err(unwritten)?,
        "memory_pool": comparison.memory_pool(),
    }))
}

/// A model and its configuration.
fn subject(args: &mut Args<'_>) -> Result<(Source, Config), Error> {
    let model = Source::from(args.text("model")?);
    let config = args.take("config").map_or_else(|| Ok(Config::default()), Config::from_value)?;
    Ok((model, config))
}

fn load(args: &mut Args<'_>, default: Load) -> Result<Load, Error> {
    Ok(Load {
        questions: count(args, "questions", default.questions, Load::MAX_QUESTIONS)?,
        prompt_tokens: count(args, "prompt_tokens", default.prompt_tokens, Load::MAX_TOKENS)?,
        max_tokens: count(args, "max_tokens", default.max_tokens, Load::MAX_TOKENS)?,
        concurrency: count(args, "concurrency", default.concurrency, Load::MAX_CONCURRENCY)?,
    })
}

fn count(args: &mut Args<'_>, name: &'static str, default: usize, most: usize) -> Result<usize, Error> {
    Ok(args.whole(name, 1..=most as u64)?.map_or(default, |count| count as usize))
}

fn unwritten(error: impl std::fmt::Display) -> Error {
    Error::new(Code::Internal, format!("the result cannot be written: {error}"))
}

impl From<BenchError> for Error {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Setting { name, .. } => Self::value(name, error.to_string()),
            BenchError::Runtime(error) => error.into(),
            BenchError::Engine(error) => error.into(),
            error @ (BenchError::Unfinished | BenchError::Text(_)) => {
                Self::new(Code::GenerationError, error.to_string())
            }
        }
    }
}

fn show(progress: Progress<'_>, tell: &mut dyn FnMut(&str)) {
    match progress {
        Progress::Opening(Opening::Download { file, done, total }) if done == total => {
            tell(&format!("downloaded {file}"))
        }
        Progress::Opening(_) => {}
        Progress::Planned { model, runs, .. } => tell(&format!("{runs} runs of {model}, after one that warms up")),
        Progress::WarmedUp { took } => tell(&format!("warmed up in {:.1} s", took.as_secs_f64())),
        Progress::Begun { arm } => tell(&format!("running {arm}")),
        Progress::Measured { arm, throughput_tok_s } => tell(&format!("{arm}: {throughput_tok_s:.2} tok/s")),
    }
}
