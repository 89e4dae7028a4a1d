//! Results for tests: one as machines give them, and one with all that is rare.

use super::arm::{Arm, Questions, Run};
use super::comparison::{Comparison, Origin, summary};
use super::figure::Figure;
use super::finding::{Finding, Pair, Sandwich, findings, target};
use crate::measured::{Counted, Percentiles};
use crate::workload::{Load, Measured};
use mlx_serving_metal_layer::{DeviceStats, LayerStats, Switched};
use serde_json::json;

/// A finding about throughput whose pairs have these changes.
pub(super) fn finding(arm: &'static str, least: f64, changes: &[f64]) -> Finding {
    let pairs = changes.iter().map(|change| Pair { plain: 100.0, with: 100.0 + change, change: *change }).collect();
    Finding::new(arm, &target(Figure::Throughput, "+10 to +15 %", least, false), pairs, 3.0, || "so it is".into())
}

/// All arms, five times.
pub(super) fn comparison() -> Comparison {
    let mut n = 0;
    let mut wave = || {
        n += 1;
        // Neither sorted nor all alike.
        1.0 + 0.006 * f64::from((n * n * 37 + n) % 23 - 11)
    };
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

fn build(run: &mut dyn FnMut(&Arm) -> Run) -> Comparison {
    let all = vec!["memory_pool", "blit_queue", "command_buffer_ring"];
    let alone = all.iter().map(|name| Arm::One(name));
    let mut arms = vec![Arm::Direct, Arm::SynchronousSpill];
    arms.extend(alone);
    arms.push(Arm::All(all.clone()));
    let order: Vec<&Arm> = (0..5).flat_map(|_| &arms).collect();
    let mut runs = vec![run(&Arm::Plain)];
    for arm in &order {
        runs.push(run(arm));
        runs.push(run(&Arm::Plain));
    }
    let sandwiches: Vec<Sandwich<'_>> = (order.iter().enumerate())
        .map(|(i, arm)| Sandwich { arm, before: &runs[2 * i], run: &runs[2 * i + 1], after: &runs[2 * i + 2] })
        .collect();
    Comparison {
        model: "rustbook-5m-4bit".into(),
        questions: Questions { load: Load::fixed(8, 128, 64, 1), prefix_tokens: 512 },
        repetitions: 5,
        threads: 0,
        settings: json!({ "arithmetic": "fast", "metal_optimizations": { "memory_pool": { "num_heaps": 2 } } }),
        device: json!({ "name": "a CPU", "backend": "cpu" }),
        arms: std::iter::once(&Arm::Plain).chain(&arms).map(|arm| summary(arm, &runs)).collect(),
        findings: arms.iter().flat_map(|arm| findings(arm, &sandwiches)).collect(),
        origin: Origin {
            at: "2026-11-30T12:00:00Z".parse().unwrap(),
            command: "mlx-serving bench compare".into(),
            commit: "0123456789ab".into(),
        },
        baseline: Some(("before.json".into(), 4000.0, -3.25)),
        runs,
    }
}

/// A run with these figures: throughput, cold start, evicted prefix, utilization.
fn run(arm: &Arm, [throughput, cold, restore, busy]: [f64; 4], overlap_ratio: Option<f64>) -> Run {
    Run {
        arm: arm.name(),
        cold_ttft_ms: cold,
        restore_ttft_ms: restore,
        measured: Measured {
            throughput_tok_s: throughput,
            prefill_tok_s: Some(throughput),
            decode_tok_s: throughput,
            requests_s: 8.0,
            ttft_ms: Percentiles { mean: 3.9, p50: 3.8, p95: 4.0, p99: 4.1 },
            itl_ms: Percentiles { mean: 0.17, p50: 0.16, p95: 0.2, p99: 0.3 },
            e2e_ms: Percentiles { mean: 14.0, p50: 14.0, p95: 15.0, p99: 16.0 },
            goodput: None,
            device_utilization: Some(busy),
            allocations_per_token: Some(0.0),
            encode_ms_per_step: Some(0.021),
            peak_memory_bytes: None,
            wall_s: 1.0,
            total_tokens: 512,
            total_prompt_tokens: Some(1024),
            tokens_counted_by: Counted::Engine,
            answered: 8,
            failed: 0,
            failures: Vec::new(),
            ended_early: 0,
            held_back: 0,
            cut_to_context: 0,
            output_hash: "same".into(),
        },
        overlap_ratio,
        all_outputs_hash: "same".into(),
        stats: LayerStats {
            memory_pool: Switched::off(None),
            blit_queue: Switched::off(None),
            command_buffer_ring: Switched::off(None),
            device: DeviceStats { name: "a CPU".into(), backend: "cpu", utilization: busy },
        },
    }
}
