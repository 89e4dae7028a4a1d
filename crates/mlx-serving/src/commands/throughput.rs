//! `bench throughput`: speed of one model under a fixed load, in this process.

use super::Context;
use crate::args::Throughput;
use crate::failure::Failure;
use crate::machine;
use mlx_serving_engine::{Event, Request, Usage};
use mlx_serving_server::ServedModel;
use serde::Serialize;
use std::io::Write;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Median and tail of some milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    p50: f64,
    p95: f64,
    p99: f64,
}

impl Percentiles {
    /// By nearest rank. All zero for no values.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |q: f64| {
            let rank = (q * values.len() as f64).ceil() as usize;
            values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(0.0)
        };
        Self { p50: at(0.50), p95: at(0.95), p99: at(0.99) }
    }
}

/// What one run measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    /// Generated tokens of all requests over the wall time of the run.
    pub throughput_tok_s: f64,
    /// Prompt tokens over the time from a request's first step to its first token, summed over the requests, times the
    /// requests at a time.
    pub prefill_tok_s: f64,
    /// Generated tokens over the time between first and last token, likewise.
    pub decode_tok_s: f64,
    pub ttft_ms: Percentiles,
    pub itl_ms: Percentiles,
    /// Time in which the device ran ops over the wall time of the run.
    pub device_utilization: f64,
    /// The process's largest resident size so far; null where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
    pub wall_s: f64,
    pub total_tokens: usize,
    /// FNV-1a over all answers' token ids, in the order of the requests.
    pub output_hash: String,
}

struct Sample {
    usage: Usage,
    ttft_ms: f64,
    itl_ms: Vec<f64>,
    tokens: Vec<u32>,
}

pub(crate) fn run(context: &Context, args: &Throughput) -> Result<(), Failure> {
    let model = context.load(args.model.model.as_deref())?;
    let room = model.engine.info().max_context;
    if args.questions == 0 || args.concurrency == 0 || args.prompt_tokens == 0 || args.max_tokens == 0 {
        return Err(Failure::usage("questions, concurrency, prompt tokens and answer tokens must be at least 1"));
    }
    if args.prompt_tokens + args.max_tokens > room {
        let message = format!(
            "a prompt of {} and an answer of {} tokens do not fit this model's context of {room}",
            args.prompt_tokens, args.max_tokens
        );
        return Err(Failure::usage(message));
    }
    // Warm caches and pages; not measured.
    measure(&model, &Throughput { questions: 1, max_tokens: args.max_tokens.min(8), ..args.clone() })?;
    let measured = measure(&model, args)?;
    let device = model.engine.device().info();
    let report = serde_json::json!({
        "benchmark": "throughput",
        "settings": {
            "model": model.id, "questions": args.questions, "prompt_tokens": args.prompt_tokens,
            "max_tokens": args.max_tokens, "concurrency": args.concurrency, "device": device.name,
            "backend": device.backend, "arithmetic": format!("{:?}", device.arithmetic).to_lowercase(),
            "threads": device.units, "metal_optimizations": context.config.metal_optimizations,
        },
        "machine": machine::describe(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let mut report = report;
    merge(&mut report, &serde_json::to_value(&measured).map_err(Failure::failed)?);
    let text = serde_json::to_string_pretty(&report).map_err(Failure::failed)?;
    if let Some(path) = &args.output {
        super::write_file(path, text.as_bytes())?;
    }
    let mut out = anstream::stdout();
    if args.json {
        writeln!(out, "{text}").map_err(Failure::output)
    } else {
        table(&measured, &mut out).map_err(Failure::output)
    }
}

/// Adds the keys of one object to another.
fn merge(into: &mut serde_json::Value, from: &serde_json::Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

fn table(m: &Measured, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "throughput      {:10.2} tok/s", m.throughput_tok_s)?;
    writeln!(out, "prefill         {:10.2} tok/s", m.prefill_tok_s)?;
    writeln!(out, "decode          {:10.2} tok/s", m.decode_tok_s)?;
    for (name, p) in [("first token", m.ttft_ms), ("between tokens", m.itl_ms)] {
        writeln!(out, "{name:15} {:10.2} ms   (p95 {:.2}, p99 {:.2})", p.p50, p.p95, p.p99)?;
    }
    writeln!(out, "device busy     {:10.1} %", 100.0 * m.device_utilization)?;
    if let Some(bytes) = m.peak_memory_bytes {
        writeln!(out, "peak memory     {:10.1} MiB", bytes as f64 / f64::from(1 << 20))?;
    }
    Ok(())
}

/// Runs the load once: as many threads as requests at a time, each taking the next request.
pub(crate) fn measure(model: &ServedModel, load: &Throughput) -> Result<Measured, Failure> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<Sample, Failure>)>> = Mutex::new(Vec::new());
    let busy = model.engine.device().counters().busy;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..load.concurrency.min(load.questions) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= load.questions {
                        return;
                    }
                    let sample = ask(model, load, i);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((i, sample));
                }
            });
        }
    });
    let wall = start.elapsed();
    let busy = model.engine.device().counters().busy.saturating_sub(busy);
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(i, _)| *i);
    let samples = results.into_iter().map(|(_, sample)| sample).collect::<Result<Vec<_>, _>>()?;
    let sum = |f: &dyn Fn(&Sample) -> f64| samples.iter().map(f).sum::<f64>();
    let streams = load.concurrency.min(load.questions) as f64;
    let total_tokens: usize = samples.iter().map(|s| s.tokens.len()).sum();
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    let hash = samples
        .iter()
        .flat_map(|s| &s.tokens)
        .flat_map(|t| t.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    Ok(Measured {
        throughput_tok_s: ratio(total_tokens as f64, wall.as_secs_f64()),
        prefill_tok_s: streams * ratio(sum(&|s| s.usage.prompt_tokens as f64), sum(&|s| s.usage.prefill_s)),
        decode_tok_s: streams * ratio(sum(&|s| s.tokens.len() as f64 - 1.0), sum(&|s| s.usage.decode_s)),
        ttft_ms: Percentiles::of(samples.iter().map(|s| s.ttft_ms).collect()),
        itl_ms: Percentiles::of(samples.iter().flat_map(|s| s.itl_ms.iter().copied()).collect()),
        device_utilization: ratio(busy.as_secs_f64(), wall.as_secs_f64()),
        peak_memory_bytes: machine::peak_memory(),
        wall_s: wall.as_secs_f64(),
        total_tokens,
        output_hash: format!("{hash:016x}"),
    })
}

/// One request: a prompt of pseudo-random tokens that shares no prefix with another's, an answer of exactly the asked length.
fn ask(model: &ServedModel, load: &Throughput, index: usize) -> Result<Sample, Failure> {
    let vocab = model.engine.info().vocab as u64;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index as u64 + 1);
    let prompt = (0..load.prompt_tokens)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocab) as u32
        })
        .collect();
    let request = Request { prompt, max_tokens: Some(load.max_tokens), ignore_eos: true, ..Request::default() };
    let start = Instant::now();
    let mut stream = model.engine.submit(request).map_err(Failure::failed)?;
    let (mut times, mut tokens) = (Vec::new(), Vec::new());
    loop {
        match stream.next_blocking() {
            Some(Event::Token(token)) => {
                times.push(start.elapsed().as_secs_f64() * 1e3);
                tokens.push(token.id);
            }
            Some(Event::Finished(finish)) => {
                let ttft_ms = times.first().copied().unwrap_or(0.0);
                let itl_ms = times.windows(2).map(|w| w[1] - w[0]).collect();
                return Ok(Sample { usage: finish.usage, ttft_ms, itl_ms, tokens });
            }
            Some(Event::Failed(error)) => return Err(Failure::failed(error)),
            None => return Err(Failure::failed("the engine ended without finishing the answer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let p = Percentiles::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((p.p50, p.p95, p.p99), (50.0, 95.0, 99.0));
        assert_eq!(Percentiles::of(vec![7.0]).p99, 7.0);
        assert_eq!(Percentiles::of(vec![]), Percentiles::default());
    }
}
