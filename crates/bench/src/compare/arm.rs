//! One run: an engine started with some of the optimizations, asked the same things in the same order.

use super::asked::{Asked, Questions};
use super::asking::{Measurements, answers, talk};
use super::timeline::Excerpt;
use crate::error::BenchError;
use crate::measured::hash;
use crate::target::{ask, prompt};

use mlx_serving_metal_layer::LayerStats;
use mlx_serving_runtime::machine::host_memory;
use mlx_serving_runtime::{Config, Model, OpenOptions, Runtime, Source};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Instant;

pub(crate) const BLIT: &str = "blit_queue";
/// Host memory for evicted blocks, MiB: more than any prompt here needs, or a quarter of what a small machine has.
fn spill_mb() -> u64 {
    2048.min(host_memory().map_or(u64::MAX, |memory| memory.total >> 22))
}

/// Optimizations that an engine runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arm {
    /// The three baselines.
    Plain,
    /// The baselines, with every allocation made on the device.
    Direct,
    /// The baselines, with KV blocks spilled and restored synchronously.
    SynchronousSpill,
    /// One optimization.
    One(&'static str),
    /// Several at once.
    All(Vec<&'static str>),
}

impl Arm {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Arm::Plain => "plain",
            Arm::Direct => "direct allocation",
            Arm::SynchronousSpill => "synchronous spilling",
            Arm::One(name) => name,
            Arm::All(_) => "all together",
        }
    }

    /// True if an optimization is on; the other arms are there to be compared with.
    pub(crate) fn is_optimized(&self) -> bool {
        matches!(self, Arm::One(_) | Arm::All(_))
    }

    /// Sends evicted KV blocks to host memory; without that they are computed again.
    fn spills(&self) -> bool {
        match self {
            Arm::Plain | Arm::Direct => false,
            Arm::SynchronousSpill => true,
            Arm::One(name) => *name == BLIT,
            Arm::All(names) => names.contains(&BLIT),
        }
    }

    /// The list that `--metal-opts` takes.
    pub(crate) fn list(&self) -> String {
        match self {
            Arm::Plain | Arm::Direct | Arm::SynchronousSpill => "none".into(),
            Arm::One(name) => (*name).into(),
            Arm::All(names) => names.join(","),
        }
    }
}

/// Measurements of one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub arm: &'static str,
    /// Time from nothing to the first token: opening the device, loading, and the prompt.
    pub cold_ttft_ms: f64,
    /// First token of a prompt whose blocks were computed before and have been evicted since; null in conversations, where every turn's is.
    pub restore_ttft_ms: Option<f64>,
    #[serde(flatten)]
    pub measured: Measurements,
    /// Share of the copies' time during which the device computed, from timestamps; null where nothing is copied apart.
    pub overlap_ratio: Option<f64>,
    /// Over every token of every answer of the run.
    pub all_outputs_hash: String,
    /// The layer's own statistics at the end.
    pub stats: LayerStats,
    /// The device, as this run found it.
    #[serde(skip)]
    pub device: Value,
    /// Copies and steps of the run, where the blit queue copied.
    #[serde(skip)]
    pub excerpts: Vec<Excerpt>,
}

/// Seeds of prompts that no question of the load has.
const COLD: usize = 1 << 20;
const PREFIX: usize = 2 << 20;
const FILLER: usize = 3 << 20;

impl Run {
    /// Runs one arm from a cold start.
    pub(crate) fn of(arm: &Arm, config: &Config, model: &Source, asked: &Asked) -> Result<Self, BenchError> {
        let mut config = config.clone();
        let options = &mut config.metal_optimizations;
        options.select(&arm.list()).map_err(|message| BenchError::setting("optimizations", message))?;
        // A benchmark of something that was switched off on the way would be a lie.
        options.graceful_fallback = false;
        config.engine.kv_cache_tokens = asked.kv_tokens();
        config.engine.kv_spill_mb = if arm.spills() { spill_mb() } else { 0 };
        let start = Instant::now();
        let options = OpenOptions { direct_allocation: *arm == Arm::Direct, ..OpenOptions::default() };
        let served = Runtime::new(config).open(model, options)?;
        asked.check_room(served.engine().info().max_context)?;
        let mut tokens = ask(&served, prompt(&served, COLD, asked.size().0), 1)?.tokens;
        let cold_ttft_ms = start.elapsed().as_secs_f64() * 1e3;
        let mut excerpts: Vec<Excerpt> = Excerpt::of("Loading, and the first prompt", &served).into_iter().collect();
        let (measured, restore_ttft_ms) = match asked {
            Asked::Questions(q) => {
                let measured = answers(&served, q)?;
                (measured, Some(evicted_prefix(&served, q, asked.kv_tokens(), &mut tokens)?))
            }
            Asked::Conversations(c) => {
                let (measured, first) = talk(&served, c)?;
                if !arm.spills() && measured.reused_share > 0.0 {
                    let percent = 100.0 * measured.reused_share;
                    let reason =
                        format!("{percent:.1} % of the prompts' tokens were still in the KV cache; ask more of them");
                    return Err(BenchError::setting("conversations", reason));
                }
                tokens.extend(first);
                (measured, None)
            }
        };
        excerpts.extend(Excerpt::of("Evicted blocks, and the steps that need them", &served));
        let (stats, info) = (served.engine().stats(), served.engine().device().info());
        Ok(Self {
            arm: arm.name(),
            cold_ttft_ms,
            restore_ttft_ms,
            all_outputs_hash: format!("{}{}", measured.output_hash, hash(tokens.iter())),
            measured,
            overlap_ratio: stats.blit_queue.counters().map(|s| s.overlap_ratio),
            device: json!({
                "name": info.name, "backend": info.backend, "instructions": info.instructions, "utilization": stats.device.utilization,
                "arithmetic": format!("{:?}", info.arithmetic).to_lowercase(), "threads": info.units,
            }),
            stats,
            excerpts,
        })
    }
}

/// Asks a prompt, then others until its blocks are evicted, then the prompt again: milliseconds to its first token.
fn evicted_prefix(model: &Model, q: &Questions, kv_tokens: usize, tokens: &mut Vec<u32>) -> Result<f64, BenchError> {
    let wanted = prompt(model, PREFIX, q.prefix_tokens);
    tokens.extend(ask(model, wanted.clone(), 1)?.tokens);
    let filler = q.prefix_tokens.max(16);
    for i in 0..kv_tokens.div_ceil(filler) {
        tokens.extend(ask(model, prompt(model, FILLER + i, filler), 1)?.tokens);
    }
    let restored = ask(model, wanted, 1)?;
    tokens.extend(&restored.tokens);
    Ok(restored.ttft_ms)
}
