//! One run: an engine started with some of the optimizations, asked the same things in the same order.

use crate::error::BenchError;
use crate::workload::{Load, Measured, ask, hash, measure, plan, prompt};
use mlx_serving_metal_layer::LayerStats;
use mlx_serving_runtime::machine::host_memory;
use mlx_serving_runtime::{Config, OpenOptions, Runtime, Source};
use serde::Serialize;
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

/// Questions that each engine is asked.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Questions {
    /// The load that throughput is measured under.
    #[serde(flatten)]
    pub load: Load,
    /// Tokens of the prompt whose cached blocks are evicted and then wanted again.
    pub prefix_tokens: usize,
}

impl Questions {
    /// Tokens that the KV cache holds: little enough that the questions evict each other.
    pub(crate) fn kv_tokens(&self) -> usize {
        let load = self.load.concurrency * (self.load.prompt_tokens.most() + self.load.max_tokens.most());
        (load + 64).max(self.prefix_tokens + 64).max(256)
    }
}

/// Measurements of one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub arm: &'static str,
    /// Time from nothing to the first token: opening the device, loading, and the prompt.
    pub cold_ttft_ms: f64,
    /// First token of a prompt whose blocks were computed before and have been evicted since.
    pub restore_ttft_ms: f64,
    #[serde(flatten)]
    pub measured: Measured,
    /// Share of the copies' time during which the device computed, from timestamps; null where nothing is copied apart.
    pub overlap_ratio: Option<f64>,
    /// Over every token of every answer of the run.
    pub all_outputs_hash: String,
    /// The layer's own statistics at the end.
    pub stats: LayerStats,
}

/// Seeds of prompts that no question of the load has.
const COLD: usize = 1 << 20;
const PREFIX: usize = 2 << 20;
const FILLER: usize = 3 << 20;

impl Run {
    /// Runs one arm from a cold start.
    pub(crate) fn of(arm: &Arm, config: &Config, model: &Source, q: &Questions) -> Result<Self, BenchError> {
        let mut config = config.clone();
        let options = &mut config.metal_optimizations;
        options.select(&arm.list()).map_err(|message| BenchError::setting("optimizations", message))?;
        // A benchmark of something that was switched off on the way would be a lie.
        options.graceful_fallback = false;
        config.engine.kv_cache_tokens = q.kv_tokens();
        config.engine.kv_spill_mb = if arm.spills() { spill_mb() } else { 0 };
        let start = Instant::now();
        let options = OpenOptions { direct_allocation: *arm == Arm::Direct, ..OpenOptions::default() };
        let served = Runtime::new(config).open(model, options)?;
        let room = served.engine().info().max_context;
        if q.prefix_tokens + 2 > room {
            return Err(BenchError::setting(
                "prefix_tokens",
                format!("{}, but this model's context of {room} must hold the answer too", q.prefix_tokens),
            ));
        }
        plan(&served, &q.load)?;
        let mut tokens = ask(&served, prompt(&served, COLD, q.load.prompt_tokens.most()), 1)?.tokens;
        let cold_ttft_ms = start.elapsed().as_secs_f64() * 1e3;
        let measured = measure(&served, &q.load)?;
        let wanted = prompt(&served, PREFIX, q.prefix_tokens);
        tokens.extend(ask(&served, wanted.clone(), 1)?.tokens);
        let filler = q.prefix_tokens.max(16);
        for i in 0..q.kv_tokens().div_ceil(filler) {
            tokens.extend(ask(&served, prompt(&served, FILLER + i, filler), 1)?.tokens);
        }
        let restored = ask(&served, wanted, 1)?;
        tokens.extend(&restored.tokens);
        let stats = served.engine().stats();
        Ok(Self {
            arm: arm.name(),
            cold_ttft_ms,
            restore_ttft_ms: restored.ttft_ms,
            all_outputs_hash: format!("{}{}", measured.output_hash, hash(tokens.iter())),
            measured,
            overlap_ratio: stats.blit_queue.counters().map(|s| s.overlap_ratio),
            stats,
        })
    }
}
