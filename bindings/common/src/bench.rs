//! The engine's own measurements, for benchmark programs in other languages.

use crate::args::Args;
use crate::error::{Code, Error};
use mlx_serving_bench::{
    self as bench, BenchError, Compare, Endpoint, EndpointOptions, Length, Load, LoadFields, LoadKind, Progress,
    Settings,
};
use mlx_serving_runtime::{Config, Progress as Opening, Source};
use serde_json::{Value, json};
use std::str::FromStr;

/// Receiver of lines that say what a benchmark is doing.
pub type Tell<'a> = &'a mut dyn FnMut(&str);

/// Speed of one model under a load: what `mlx-serving bench throughput --output` writes. Arguments: `model`, the bundled one if it is left out;
/// `config`, as an engine's options; `questions`, `prompt_tokens` and `max_tokens` (a number, or a distribution as text), `concurrency`, `rate`,
/// `load`, `prefix_tokens`, `turns`, `seed`, `warm_up`, `goodput`, all as the flags of the command; for a server instead `url`, `api`,
/// `api_key`. Blocks for as long as it takes.
///
/// # Errors
/// An argument that is not taken; the model cannot be opened; a request in this process fails, or every request to a server.
pub fn throughput(args: &Value, tell: Tell<'_>) -> Result<Value, Error> {
    let mut args = Args::of(args)?;
    let model = args.text("model")?.map(str::to_owned);
    let config = args.take("config");
    let url = args.text("url")?.map(str::to_owned);
    let settings = settings(&mut args)?;
    let server = url
        .map(|url| -> Result<_, Error> {
            let api = parsed(&mut args, "api")?;
            let api_key = args.text("api_key")?.map(|key| key.to_owned().into());
            Ok(EndpointOptions { url, api, model: model.clone(), api_key, silence: EndpointOptions::SILENCE })
        })
        .transpose()?;
    args.finish()?;
    let mut show = |progress: Progress<'_>| show(progress, tell);
    let measured = match server {
        Some(options) => {
            let endpoint = Endpoint::open(&options, &settings.load)?;
            bench::throughput_of_server(&endpoint, &settings, &mut show)?
        }
        None => {
            let config = config.map_or_else(|| Ok(Config::default()), Config::from_value)?;
            bench::throughput(&config, &Source::from(model.as_deref()), &settings, &mut show)?
        }
    };
    match measured.measured.failures.first() {
        Some(first) if measured.is_all_failed() => Err(Error::new(
            Code::GenerationError,
            format!("all {} requests failed: {}: {}", measured.measured.failed, first.cause, first.example),
        )),
        _ => serde_json::to_value(&measured).map_err(unwritten),
    }
}

/// Each optimization against plain runs. Gives `result`, what `mlx-serving bench compare --output` writes; `page`, its report as HTML;
/// `table`, its table for a terminal; `memory_pool`, plain against the pool alone, where that was measured. Arguments: `model` and `config` as
/// [`throughput`]'s; `optimizations`, `repetitions`, `load`, `questions`, `prompt_tokens`, `max_tokens`, `concurrency`, `prefix_tokens`,
/// `conversations`, `turns`, `baseline`, `max_regression`, `command`. Whether throughput was lost is `regression` in the result. Blocks for as
/// long as it takes.
///
/// # Errors
/// As [`throughput`]'s, and an optimization that changed an answer.
pub fn compare(args: &Value, tell: Tell<'_>) -> Result<Value, Error> {
    let mut args = Args::of(args)?;
    let (model, config) = subject(&mut args)?;
    let default = Compare::default();
    let settings = Compare {
        optimizations: args.text("optimizations")?.map_or(default.optimizations, str::to_owned),
        repetitions: count(&mut args, "repetitions", default.repetitions, Compare::MAX_REPETITIONS)?,
        load: load_kind(args.text("load")?)?,
        questions: count_of(&mut args, "questions", Load::MAX_QUESTIONS)?,
        prompt_tokens: count(&mut args, "prompt_tokens", default.prompt_tokens, Load::MAX_TOKENS)?,
        max_tokens: count(&mut args, "max_tokens", default.max_tokens, Load::MAX_TOKENS)?,
        concurrency: count(&mut args, "concurrency", default.concurrency, Load::MAX_CONCURRENCY)?,
        prefix_tokens: count_of(&mut args, "prefix_tokens", Load::MAX_TOKENS)?,
        conversations: count_of(&mut args, "conversations", Load::MAX_QUESTIONS)?,
        turns: count_of(&mut args, "turns", Compare::MAX_TURNS)?,
        baseline: args.text("baseline")?.map(Into::into),
        max_regression: args.number("max_regression")?.map(f64::from),
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

/// Settings that the flags of `bench throughput` name.
fn settings(args: &mut Args<'_>) -> Result<Settings, Error> {
    let default = Settings::from(Load::default());
    let fields = LoadFields {
        questions: count_of(args, "questions", Load::MAX_QUESTIONS)?,
        prompt_tokens: length(args, "prompt_tokens")?,
        max_tokens: length(args, "max_tokens")?,
        concurrency: count_of(args, "concurrency", Load::MAX_CONCURRENCY)?,
        // As it was written: the nearest f32 would be another rate in the record.
        rate: args.number("rate")?.and_then(|_| args.take("rate")?.as_f64()),
        load: args.text("load")?.map(str::to_owned),
        prefix_tokens: count_of(args, "prefix_tokens", Load::MAX_TOKENS)?,
        turns: count_of(args, "turns", Load::MAX_TURNS)?,
        seed: args.whole("seed", 0..=u64::MAX)?,
    };
    let warm_up = args.whole("warm_up", 0..=Settings::MAX_WARM_UP as u64)?;
    Ok(Settings {
        load: Load::try_from(fields)?,
        warm_up: warm_up.map_or(default.warm_up, |n| n as usize),
        limits: parsed(args, "goodput")?,
    })
}

/// A length: a number, or a distribution as text.
fn length(args: &mut Args<'_>, name: &'static str) -> Result<Option<Length>, Error> {
    if args.take(name).is_some_and(Value::is_string) {
        return parsed(args, name);
    }
    Ok(count_of(args, name, Load::MAX_TOKENS)?.map(Length::Fixed))
}

/// A text that stands for a value.
fn parsed<T: FromStr<Err = String>>(args: &mut Args<'_>, name: &'static str) -> Result<Option<T>, Error> {
    let parse = |text: &str| text.parse().map_err(|takes| Error::value(name, format!("`{name}` is {text:?}; {takes}")));
    args.text(name)?.map(parse).transpose()
}

fn count(args: &mut Args<'_>, name: &'static str, default: usize, most: usize) -> Result<usize, Error> {
    Ok(count_of(args, name, most)?.unwrap_or(default))
}

fn count_of(args: &mut Args<'_>, name: &'static str, most: usize) -> Result<Option<usize>, Error> {
    Ok(args.whole(name, 1..=most as u64)?.map(|count| count as usize))
}

fn load_kind(name: Option<&str>) -> Result<LoadKind, Error> {
    let kinds = [LoadKind::Questions, LoadKind::Conversations];
    let Some(name) = name else { return Ok(LoadKind::default()) };
    kinds.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
        Error::value("load", format!("`load` is {name:?}, and takes {}", kinds.map(LoadKind::name).join(" or ")))
    })
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
            error @ (BenchError::Unfinished | BenchError::Server(_) | BenchError::Thread(_) | BenchError::Text(_)) => {
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
        Progress::Asking { requests } => tell(&format!("{requests} requests, after those that warm up")),
        Progress::WarmUpFailed { requests, cause } => {
            tell(&format!("of the requests that warm up, {requests} failed: {cause}"))
        }
        Progress::Answered { .. } => {}
        Progress::Planned { model, runs, .. } => tell(&format!("{runs} runs of {model}, after one that warms up")),
        Progress::WarmedUp { took } => tell(&format!("warmed up in {:.1} s", took.as_secs_f64())),
        Progress::Begun { arm } => tell(&format!("running {arm}")),
        Progress::Measured { arm, throughput_tok_s } => tell(&format!("{arm}: {throughput_tok_s:.2} tok/s")),
    }
}
