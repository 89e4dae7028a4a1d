//! Results for tests: one as machines give them, and one with all that is rare.

use super::Compare;
use super::aim::target;
use super::arm::{Arm, BLIT, Run};
use super::asking::Measurements;
use super::baseline::Baseline;
use super::comparison::{Comparison, Origin, Standing, summary};
use super::figure::Figure;
use super::finding::{Finding, Pair, Sandwich, findings};
use super::quiet::Others;
use super::regression::Regression;
use super::statistics::Median;
use super::timeline::Excerpt;
use crate::measured::Percentiles;
use mlx_serving_metal_layer::{Activity, DeviceStats, Interval, LayerStats, Switched};
use serde_json::{Value, json};
use std::time::Duration;

/// A finding about throughput whose pairs have these changes.
pub(super) fn finding(arm: &'static str, least: f64, changes: &[f64]) -> Finding {
    let pairs = changes.iter().map(|change| Pair { plain: 100.0, with: 100.0 + change, change: *change }).collect();
    Finding::new(arm, &target(Figure::Throughput, "+10 to +15 %", least, false), pairs, 3.0, || "so it is".into())
}

/// All arms, five times.
pub(super) fn comparison() -> Comparison {
    let mut numbers = wave();
    let mut wave = || 1.0 + 0.066 * numbers();
    build(&mut |arm| {
        let (speed, busy) = match arm {
            Arm::All(_) => (1.16, 0.98),
            Arm::One("command_buffer_ring") => (1.05, 0.83),
            _ => (1.0, 0.71),
        };
        let busy = busy * (0.5 + 0.5 * wave());
        let restore =
            if matches!(arm, Arm::One("blit_queue") | Arm::All(_) | Arm::SynchronousSpill) { 3.3 } else { 17.6 };
        run(arm, [4100.0 * speed * wave(), 13.4 * wave(), restore * wave(), busy], Some(0.07))
    })
}

/// All arms, once.
pub(super) fn few() -> Comparison {
    let all = comparison();
    let runs: Vec<Run> = all.runs.into_iter().take(2 * all.arms.len() - 1).collect();
    let arms = arms();
    let change = Median { median: -3.25, low: -3.25, high: -3.25, coverage: 0.0 };
    made(arms, runs, 1, change)
}

/// Outliers, changes down, large and small values, figures of zero, and nothing that copies.
pub(super) fn extremes() -> Comparison {
    let mut n = 0;
    build(&mut |arm| {
        n += 1;
        let odd = if n == 9 { 40.0 } else { 1.0 };
        let values = match arm {
            Arm::Plain => [1.2e-5 * odd, 3.0e9 * odd * odd, 0.0, 0.5],
            Arm::Direct => [9.9e-6, 3.0e9, 0.0, 0.5],
            Arm::One("memory_pool") => [1.1e8, 3.0e9, 0.0, 0.5],
            Arm::One("blit_queue") => [1.3e-5, 2.0e9 * f64::from(n), f64::NAN, 0.5],
            Arm::One(_) => [1.2e-5, 3.0e9, 0.0, 0.01 * odd / 40.0],
            _ => [0.0, 3.0e9, 7.0, 0.5],
        };
        run(arm, values, None)
    })
}

/// All arms, five times, with a throughput of `speed` times 4000 tok/s that varies by `noise`.
pub(super) fn runs(speed: impl Fn(&Arm) -> f64, noise: f64) -> (Vec<Arm>, Vec<Run>) {
    let mut wave = wave();
    all_arms(&mut |arm| run(arm, [4000.0 * speed(arm) * (1.0 + noise * wave()), 13.0, 17.0, 0.7], None))
}

pub(super) fn sandwiches<'a>(arms: &'a [Arm], runs: &'a [Run]) -> Vec<Sandwich<'a>> {
    super::sandwiches(arms, runs)
}

/// An interval, microseconds.
pub(super) fn interval(activity: Activity, from: u64, to: u64, overlapped: u64) -> Interval {
    let us = Duration::from_micros;
    Interval {
        activity,
        from: us(from),
        to: us(to),
        overlapped: us(overlapped),
        bytes: if activity == Activity::Step { 0 } else { 49_152 },
    }
}

/// Three steps and three copies, of which two overlap a step.
pub(super) fn intervals() -> Vec<Interval> {
    vec![
        interval(Activity::Step, 100, 180, 0),
        interval(Activity::Upload, 160, 200, 20),
        interval(Activity::Step, 200, 290, 0),
        interval(Activity::Download, 210, 230, 20),
        interval(Activity::Upload, 291, 300, 0),
        interval(Activity::Step, 300, 380, 0),
    ]
}

/// Numbers from −1 to 1, neither sorted nor all alike.
fn wave() -> impl FnMut() -> f64 {
    let mut n = 0;
    move || {
        n += 1;
        f64::from((n * n * 37 + n) % 23 - 11) / 11.0
    }
}

fn arms() -> Vec<Arm> {
    let all = vec!["memory_pool", "blit_queue", "command_buffer_ring"];
    let mut arms = vec![Arm::Direct, Arm::SynchronousSpill];
    arms.extend(all.iter().map(|name| Arm::One(name)));
    arms.push(Arm::All(all));
    arms
}

/// A plain run, then every arm five times with a plain run after each.
fn all_arms(run: &mut dyn FnMut(&Arm) -> Run) -> (Vec<Arm>, Vec<Run>) {
    let arms = arms();
    let mut runs = vec![run(&Arm::Plain)];
    for arm in (0..5).flat_map(|_| &arms) {
        runs.push(run(arm));
        runs.push(run(&Arm::Plain));
    }
    (arms, runs)
}

fn build(run: &mut dyn FnMut(&Arm) -> Run) -> Comparison {
    let (arms, runs) = all_arms(run);
    made(arms, runs, 5, Median { median: -3.25, low: -6.0, high: -1.0, coverage: 0.9375 })
}

/// The result of these runs, with this change against a baseline.
fn made(arms: Vec<Arm>, runs: Vec<Run>, repetitions: usize, change: Median) -> Comparison {
    let around = sandwiches(&arms, &runs);
    let asked = Compare { questions: Some(8), ..Compare::default() }.asked().unwrap();
    let others = Others(Some(0.37));
    Comparison {
        model: "rustbook-5m-4bit".into(),
        asked,
        repetitions,
        threads: 0,
        settings: json!({ "arithmetic": "fast", "metal_optimizations": { "memory_pool": { "num_heaps": 2 } } }),
        device: json!({ "name": "a CPU", "backend": "cpu" }),
        arms: std::iter::once(&Arm::Plain).chain(&arms).map(|arm| summary(arm, &runs)).collect(),
        findings: arms.iter().flat_map(|arm| findings(arm, asked.kind(), &around)).collect(),
        origin: Origin {
            at: "2026-11-30T12:00:00Z".parse().unwrap(),
            command: "mlx-serving bench compare".into(),
            commit: "0123456789ab".into(),
        },
        regression: Some(Regression::of(5.0, Some(("before.json", change)), others, &arms, &around)),
        standing: Some(Standing { baseline: Baseline::sample(), change }),
        others,
        runs,
    }
}

/// A run with these figures: throughput, cold start, evicted prefix, utilization.
fn run(arm: &Arm, [throughput, cold, restore, busy]: [f64; 4], overlap_ratio: Option<f64>) -> Run {
    Run {
        arm: arm.name(),
        cold_ttft_ms: cold,
        restore_ttft_ms: Some(restore),
        measured: Measurements {
            throughput_tok_s: throughput,
            prefill_tok_s: Some(throughput),
            decode_tok_s: Some(throughput),
            ttft_ms: Percentiles { mean: 3.9, p50: 3.8, p95: 4.0, p99: 4.1 },
            itl_ms: Percentiles { mean: 0.17, p50: 0.16, p95: 0.2, p99: 0.3 },
            device_utilization: busy,
            allocations_per_token: 0.0,
            encode_ms_per_step: 0.021,
            peak_memory_bytes: None,
            wall_s: 1.0,
            total_tokens: 512,
            reused_share: 0.0,
            output_hash: "same".into(),
            every_ttft_ms: [0.9, 1.0, 1.0, 1.3].map(|n| n * cold).to_vec(),
            every_itl_ms: (0..100).map(|n| 0.16 + 0.0002 * f64::from(n)).collect(),
        },
        device: Value::Null,
        excerpts: Excerpt::from_intervals("Blocks", intervals())
            .filter(|_| overlap_ratio.is_some() && *arm == Arm::One(BLIT))
            .into_iter()
            .collect(),
        overlap_ratio,
        all_outputs_hash: "same".into(),
        stats: LayerStats {
            memory_pool: Switched::off(None),
            blit_queue: Switched::off(None),
            command_buffer_ring: Switched::off(None),
            device: DeviceStats { name: "a CPU".into(), backend: "cpu", instructions: None, utilization: busy },
        },
    }
}
