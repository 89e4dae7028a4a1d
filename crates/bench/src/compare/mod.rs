//! Each optimization alone, then all together, each run between two plain runs.

mod aim;
mod arm;
mod asked;
mod asking;
mod baseline;
mod comparison;
mod distribution;
mod figure;
mod finding;
mod headline;
mod number;
mod outcome;
mod plot;
mod quiet;
mod regression;
mod report;
#[cfg(test)]
mod samples;
mod settings;
mod setup;
mod statistics;
mod table;
mod timeline;

pub use asked::LoadKind;
pub use comparison::Comparison;
pub use settings::Compare;

use crate::error::{BenchError, check_range};
use crate::progress::Progress;
use arm::{Arm, BLIT, Run};
use baseline::Baseline;
use comparison::{Origin, Standing, figures, summary};
use figure::Figure;
use finding::{Sandwich, findings};
use mlx_serving_runtime::{Config, Progress as Opening, Source};
use quiet::{CpuTime, Others};
use regression::Regression;
use serde_json::json;
use setup::Setup;
use statistics::Median;
use std::time::Instant;

/// Measures optimizations on this machine: every run opens the model anew, and every run of an arm lies between two plain ones. Whether all
/// outputs were equal, and whether throughput was lost, is for the caller to ask, by [`Comparison::unequal`] and
/// [`Comparison::past_limit`].
///
/// # Errors
/// A setting that cannot be, or not with this model; a baseline that was measured otherwise; the model cannot be opened; a request fails.
pub fn compare(
    config: &Config,
    model: &Source,
    settings: &Compare,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Comparison, BenchError> {
    let asked = settings.asked()?;
    let arms = arms(config, &settings.optimizations, asked.kind())?;
    check_range("repetitions", settings.repetitions, Compare::MAX_REPETITIONS)?;
    settings.check_max_regression()?;
    let baseline = settings.baseline.as_deref().map(Baseline::read).transpose()?;
    if let Some(baseline) = &baseline {
        baseline.check(&Setup::here(config, model, &asked)?)?;
    }
    model.find(&mut |p| {
        progress(Progress::Opening(Opening::Download { file: p.file, done: p.done, total: p.total }));
    })?;
    let (name, repetitions, origin) = (model.id(), settings.repetitions, Origin::now(&settings.command));
    let total = repetitions * arms.len() * 2 + 1;
    progress(Progress::Planned { model: &name, arms: arms.len(), repetitions, runs: total });
    let start = Instant::now();
    // Warms file cache and pages; does not count.
    Run::of(&Arm::Plain, config, model, &asked)?;
    progress(Progress::WarmedUp { took: start.elapsed() });
    let mut runs = Vec::with_capacity(total);
    let mut once = |arm: &Arm| -> Result<(), BenchError> {
        progress(Progress::Begun { arm: arm.name() });
        let run = Run::of(arm, config, model, &asked)?;
        progress(Progress::Measured { arm: arm.name(), throughput_tok_s: run.measured.throughput_tok_s });
        runs.push(run);
        Ok(())
    };
    let cpu_time = CpuTime::now();
    once(&Arm::Plain)?;
    for _ in 0..repetitions {
        for arm in &arms {
            once(arm)?;
            once(&Arm::Plain)?;
        }
    }
    let others = Others::since(cpu_time);
    let sandwiches = sandwiches(&arms, &runs);
    let standing = baseline.map(|baseline| {
        let plain = Median::of(&figures(&Arm::Plain, Figure::Throughput, &runs));
        Standing { change: baseline.change(plain), baseline }
    });
    let against = standing.as_ref().map(|s| (s.baseline.file.as_str(), s.change));
    let regression = settings.max_regression.map(|max| Regression::of(max, against, others, &arms, &sandwiches));
    Ok(Comparison {
        model: name,
        asked,
        repetitions,
        threads: config.engine.threads,
        settings: json!({
            "optimizations": settings.optimizations,
            "device": config.engine.device,
            "arithmetic": config.engine.arithmetic,
            "max_batch_rows": config.engine.max_batch_rows,
            "kv_cache_tokens": asked.kv_tokens(),
            "metal_optimizations": config.metal_optimizations,
        }),
        device: runs[0].device.clone(),
        arms: std::iter::once(&Arm::Plain).chain(&arms).map(|arm| summary(arm, &runs)).collect(),
        findings: arms.iter().flat_map(|arm| findings(arm, asked.kind(), &sandwiches)).collect(),
        standing,
        regression,
        others,
        origin,
        runs,
    })
}

/// Every run of an arm with the plain ones before and after it: `runs` has a plain one, then the arms with a plain one after each, again and
/// again.
fn sandwiches<'a>(arms: &'a [Arm], runs: &'a [Run]) -> Vec<Sandwich<'a>> {
    let around = runs.windows(3).step_by(2);
    arms.iter()
        .cycle()
        .zip(around)
        .map(|(arm, runs)| Sandwich { arm, before: &runs[0], run: &runs[1], after: &runs[2] })
        .collect()
}

/// The arms that a list names, in the order of running; direct allocation beside the pool where prompts have nothing in common, synchronous
/// spilling beside the blit queue.
fn arms(config: &Config, list: &str, load: LoadKind) -> Result<Vec<Arm>, BenchError> {
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
    if active.contains(&"memory_pool") && load == LoadKind::Questions {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T>(result: Result<T, BenchError>, key: &str) -> bool {
        matches!(result, Err(BenchError::Setting { name, .. }) if name == key)
    }

    #[test]
    fn all_runs_each_alone_and_then_together() {
        let names =
            |list, load| arms(&Config::default(), list, load).unwrap().iter().map(Arm::name).collect::<Vec<_>>();
        let each = [
            "direct allocation",
            "synchronous spilling",
            "memory_pool",
            "blit_queue",
            "command_buffer_ring",
            "all together",
        ];
        assert_eq!(names("all", LoadKind::Questions), each);
        assert_eq!(names("all", LoadKind::Conversations), each[1..]);
        assert_eq!(names("command_buffer_ring", LoadKind::Questions), ["command_buffer_ring"]);
        assert_eq!(names("memory_pool,blit_queue", LoadKind::Questions).last(), Some(&"all together"));
    }

    #[test]
    fn a_list_without_optimizations_is_refused() {
        for list in ["none", "turbo", ""] {
            assert!(refused(arms(&Config::default(), list, LoadKind::Questions), "optimizations"), "{list}");
        }
    }

    #[test]
    fn every_run_lies_between_its_neighbors() {
        let (arms, runs) = samples::runs(|_| 1.0, 0.0);
        let all = sandwiches(&arms, &runs);
        assert_eq!(all.len(), 5 * arms.len());
        for sandwich in all {
            let names = [sandwich.before.arm, sandwich.run.arm, sandwich.after.arm];
            assert_eq!(names, ["plain", sandwich.arm.name(), "plain"]);
        }
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
        let settings = Compare::default();
        assert!(matches!(compare(&Config::default(), &nowhere, &settings, &mut |_| ()), Err(BenchError::Runtime(_))));
    }

    #[test]
    fn a_baseline_is_judged_before_a_model_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("b.json");
        std::fs::write(&file, r#"{"benchmark": "throughput", "throughput_tok_s": 84.96}"#).unwrap();
        let settings = Compare { baseline: Some(file), ..Compare::default() };
        let result = compare(&Config::default(), &Source::from("/nowhere"), &settings, &mut |_| panic!("it began"));
        assert!(refused(result, "baseline"));
    }
}
