//! Each optimization alone, then all together, each run between two plain runs.

mod arm;
mod comparison;
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

pub use comparison::Comparison;

use crate::error::{BenchError, check_range};
use crate::progress::Progress;
use crate::workload::Load;
use arm::{Arm, BLIT, Questions, Run};
use comparison::{Origin, figures, summary};
use figure::Figure;
use finding::{Sandwich, findings};
use mlx_serving_runtime::{Config, Progress as Opening, Source};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use statistics::Median;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The most that `engine.kv_cache_tokens` may be.
const MAX_KV_TOKENS: usize = 16_777_216;

/// Settings of [`compare`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compare {
    /// Optimizations: `all`, or names separated by commas.
    pub optimizations: String,
    /// Repetitions of every arm; at least 5 for intervals that mean something.
    pub repetitions: usize,
    /// Requests of a run.
    pub questions: usize,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens of each answer.
    pub max_tokens: usize,
    /// Requests at a time.
    pub concurrency: usize,
    /// Tokens of the prompt whose cached prefix is evicted and asked for again.
    pub prefix_tokens: usize,
    /// File of an earlier result, with whose `throughput_tok_s` the plain arm is compared.
    pub baseline: Option<PathBuf>,
    /// The command line, word by word, for the record.
    pub command: Vec<String>,
}

impl Default for Compare {
    fn default() -> Self {
        Self {
            optimizations: "all".into(),
            repetitions: 5,
            questions: 8,
            prompt_tokens: 128,
            max_tokens: 64,
            concurrency: 1,
            prefix_tokens: 512,
            baseline: None,
            command: Vec::new(),
        }
    }
}

impl Compare {
    /// The most repetitions.
    pub const MAX_REPETITIONS: usize = 1000;

    /// The questions of a run, checked as far as they can be without a model.
    fn questions(&self) -> Result<Questions, BenchError> {
        let &Self { questions, prompt_tokens, max_tokens, concurrency, prefix_tokens, .. } = self;
        let load = Load::fixed(questions, prompt_tokens, max_tokens, concurrency);
        load.check_range()?;
        check_range("prefix_tokens", prefix_tokens, Load::MAX_TOKENS)?;
        let questions = Questions { load, prefix_tokens };
        if questions.kv_tokens() > MAX_KV_TOKENS {
            let reason = format!(
                "{concurrency} times a prompt of {prompt_tokens} and an answer of {max_tokens} tokens asks for a KV cache of {} tokens, and \
                 the most is {MAX_KV_TOKENS}",
                questions.kv_tokens()
            );
            return Err(BenchError::setting("concurrency", reason));
        }
        Ok(questions)
    }
}

/// Measures optimizations on this machine: every run opens the model anew, and every run of an arm lies between two plain ones. Whether all
/// outputs were equal is for the caller to ask, by [`Comparison::unequal`].
///
/// # Errors
/// A setting that cannot be, or not with this model; the model cannot be opened; a request fails.
pub fn compare(
    config: &Config,
    model: &Source,
    settings: &Compare,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Comparison, BenchError> {
    let arms = arms(config, &settings.optimizations)?;
    check_range("repetitions", settings.repetitions, Compare::MAX_REPETITIONS)?;
    let baseline = settings.baseline.as_deref().map(throughput_of).transpose()?;
    let questions = settings.questions()?;
    model.find(&mut |p| {
        progress(Progress::Opening(Opening::Download { file: p.file, done: p.done, total: p.total }));
    })?;
    let (name, repetitions, origin) = (model.id(), settings.repetitions, Origin::now(&settings.command));
    let total = repetitions * arms.len() * 2 + 1;
    progress(Progress::Planned { model: &name, arms: arms.len(), repetitions, runs: total });
    let start = Instant::now();
    // Warms file cache and pages; does not count.
    Run::of(&Arm::Plain, config, model, &questions)?;
    progress(Progress::WarmedUp { took: start.elapsed() });
    let mut runs = Vec::with_capacity(total);
    let mut once = |arm: &Arm| -> Result<(), BenchError> {
        progress(Progress::Begun { arm: arm.name() });
        let run = Run::of(arm, config, model, &questions)?;
        progress(Progress::Measured { arm: arm.name(), throughput_tok_s: run.measured.throughput_tok_s });
        runs.push(run);
        Ok(())
    };
    once(&Arm::Plain)?;
    for _ in 0..repetitions {
        for arm in &arms {
            once(arm)?;
            once(&Arm::Plain)?;
        }
    }
    let order: Vec<&Arm> = (0..repetitions).flat_map(|_| &arms).collect();
    let sandwiches: Vec<Sandwich<'_>> = (order.iter().enumerate())
        .map(|(i, arm)| Sandwich { arm, before: &runs[2 * i], run: &runs[2 * i + 1], after: &runs[2 * i + 2] })
        .collect();
    let findings = arms.iter().flat_map(|arm| findings(arm, &sandwiches)).collect();
    Ok(Comparison {
        model: name,
        questions,
        repetitions,
        threads: config.engine.threads,
        settings: json!({
            "optimizations": settings.optimizations,
            "device": config.engine.device,
            "arithmetic": config.engine.arithmetic,
            "max_batch_rows": config.engine.max_batch_rows,
            "kv_cache_tokens": questions.kv_tokens(),
            "metal_optimizations": config.metal_optimizations,
        }),
        device: serde_json::to_value(&runs[0].stats.device)?,
        arms: std::iter::once(&Arm::Plain).chain(&arms).map(|arm| summary(arm, &runs)).collect(),
        findings,
        baseline: baseline.map(|(file, before)| {
            let plain = figures(&Arm::Plain, Figure::Throughput, &runs);
            (file, before, 100.0 * (Median::of(&plain).median / before - 1.0))
        }),
        origin,
        runs,
    })
}

/// The arms that a list names, in the order of running; direct allocation beside the pool, synchronous spilling beside the blit queue.
fn arms(config: &Config, list: &str) -> Result<Vec<Arm>, BenchError> {
    let mut options = config.metal_optimizations.clone();
    options.select(list).map_err(|message| BenchError::setting("optimizations", message))?;
    let active = options.active();
    if active.is_empty() {
        return Err(BenchError::setting(
            "optimizations",
            "it names none; give all, or some of memory_pool,blit_queue,command_buffer_ring",
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
fn throughput_of(path: &Path) -> Result<(String, f64), BenchError> {
    let failed = |why: String| BenchError::setting("baseline", format!("{}: {why}", path.display()));
    let text = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let value: Value = serde_json::from_slice(&text).map_err(|e| failed(format!("not JSON: {e}")))?;
    match value["throughput_tok_s"].as_f64() {
        Some(figure) if figure > 0.0 => Ok((path.display().to_string(), figure)),
        _ => Err(failed("it has no throughput_tok_s above 0; write it with bench throughput --output".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T>(result: Result<T, BenchError>, key: &str) -> bool {
        matches!(result, Err(BenchError::Setting { name, .. }) if name == key)
    }

    #[test]
    fn all_runs_each_alone_and_then_together() {
        let names = |list| arms(&Config::default(), list).unwrap().iter().map(Arm::name).collect::<Vec<_>>();
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
    fn a_list_without_optimizations_is_refused() {
        for list in ["none", "turbo", ""] {
            assert!(refused(arms(&Config::default(), list), "optimizations"), "{list}");
        }
    }

    #[test]
    fn a_baseline_needs_a_throughput() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("b.json");
        for bad in ["", "{}", r#"{"throughput_tok_s": 0}"#, r#"{"throughput_tok_s": "9"}"#] {
            std::fs::write(&file, bad).unwrap();
            assert!(refused(throughput_of(&file), "baseline"), "{bad}");
        }
        std::fs::write(&file, r#"{"throughput_tok_s": 84.96}"#).unwrap();
        assert_eq!(throughput_of(&file).unwrap().1, 84.96);
    }

    #[test]
    fn settings_are_read_from_json_and_a_key_that_is_not_there_has_its_default() {
        let settings: Compare = serde_json::from_value(json!({ "questions": 3 })).unwrap();
        assert_eq!(settings, Compare { questions: 3, ..Compare::default() });
        assert!(serde_json::from_value::<Compare>(json!({ "question": 3 })).is_err());
        assert!(serde_json::from_value::<Load>(json!({ "questions": -1 })).is_err());
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name_before_a_model_is_looked_for() {
        let nowhere = Source::from("/nowhere");
        for key in ["questions", "prompt_tokens", "max_tokens", "concurrency", "prefix_tokens", "repetitions"] {
            for value in [0, usize::MAX] {
                let settings: Compare = serde_json::from_value(json!({ (key): value })).unwrap();
                let result = compare(&Config::default(), &nowhere, &settings, &mut |_| panic!("it began"));
                assert!(refused(result, key), "{key}: {value}");
            }
        }
        let settings = Compare { concurrency: 4096, prompt_tokens: 1 << 20, ..Compare::default() };
        assert!(refused(settings.questions(), "concurrency"));
        let settings = Compare::default();
        assert!(matches!(compare(&Config::default(), &nowhere, &settings, &mut |_| ()), Err(BenchError::Runtime(_))));
    }
}
