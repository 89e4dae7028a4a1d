//! A fixed load on one engine in this process, and what it measured: what the benchmarks share.

use crate::error::{BenchError, check_range};
use mlx_serving_engine::{Event, Request, Usage};
use mlx_serving_runtime::{Model, machine};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Amount that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Load {
    /// Requests.
    pub questions: usize,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens of each answer.
    pub max_tokens: usize,
    /// Requests at a time.
    pub concurrency: usize,
}

impl Default for Load {
    fn default() -> Self {
        Self { questions: 16, prompt_tokens: 128, max_tokens: 64, concurrency: 1 }
    }
}

impl Load {
    /// The most requests.
    pub const MAX_QUESTIONS: usize = 1_000_000;
    /// The most tokens of a prompt, and of an answer.
    pub const MAX_TOKENS: usize = 1_048_576;
    /// The most requests at a time.
    pub const MAX_CONCURRENCY: usize = 4096;

    /// Refuses a load that is empty or larger than any can be.
    pub(crate) fn check_range(&self) -> Result<(), BenchError> {
        check_range("questions", self.questions, Self::MAX_QUESTIONS)?;
        check_range("prompt_tokens", self.prompt_tokens, Self::MAX_TOKENS)?;
        check_range("max_tokens", self.max_tokens, Self::MAX_TOKENS)?;
        check_range("concurrency", self.concurrency, Self::MAX_CONCURRENCY)
    }

    /// Refuses a load that is empty or does not fit the model.
    pub(crate) fn check(&self, model: &Model) -> Result<(), BenchError> {
        self.check_range()?;
        let room = model.engine().info().max_context;
        if self.prompt_tokens + self.max_tokens > room {
            let message = format!(
                "a prompt of {} and an answer of {} tokens do not fit this model's context of {room}",
                self.prompt_tokens, self.max_tokens
            );
            return Err(BenchError::setting("prompt_tokens", message));
        }
        Ok(())
    }
}

/// Median and tail of some milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 95 of 100 are at most this.
    pub p95: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
}

impl Percentiles {
    /// Percentiles by nearest rank; all zero for no values.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |q: f64| {
            let rank = (q * values.len() as f64).ceil() as usize;
            values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(0.0)
        };
        Self { p50: at(0.50), p95: at(0.95), p99: at(0.99) }
    }
}

/// Measurements of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Generated tokens of all requests over the wall time of the run.
    pub throughput_tok_s: f64,
    /// Prompt tokens over the time from a request's first step to its first token, summed over the requests, times the
    /// requests at a time.
    pub prefill_tok_s: f64,
    /// Generated tokens over the time between first and last token, likewise.
    pub decode_tok_s: f64,
    /// Submission to first token.
    pub ttft_ms: Percentiles,
    /// Between one token and the next of an answer.
    pub itl_ms: Percentiles,
    /// Time in which the device ran ops over the wall time of the run.
    pub device_utilization: f64,
    /// Heaps and buffers taken from the device during the run, per generated token.
    pub allocations_per_token: f64,
    /// Host time from a step's plan to its submission, per step.
    pub encode_ms_per_step: f64,
    /// The process's largest resident size so far; null where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// Wall time of the run.
    pub wall_s: f64,
    /// Generated tokens of all requests.
    pub total_tokens: usize,
    /// FNV-1a over all answers' token ids, in the order of the requests.
    pub output_hash: String,
}

/// One answer.
pub(crate) struct Sample {
    usage: Usage,
    /// Submission to first token.
    pub ttft_ms: f64,
    itl_ms: Vec<f64>,
    /// The answer's token ids.
    pub tokens: Vec<u32>,
}

/// Runs the load once: as many threads as requests at a time, each taking the next request.
///
/// # Errors
/// The load is empty, too large, or does not fit the model; a request fails.
pub fn measure(model: &Model, load: &Load) -> Result<Measured, BenchError> {
    load.check(model)?;
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<Sample, BenchError>)>> = Mutex::new(Vec::new());
    let (before, pace) = (model.engine().device().counters(), model.engine().pace());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..load.concurrency.min(load.questions) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= load.questions {
                        return;
                    }
                    let sample = ask(model, prompt(model, i, load.prompt_tokens), load.max_tokens);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((i, sample));
                }
            });
        }
    });
    let wall = start.elapsed();
    let (after, paced) = (model.engine().device().counters(), model.engine().pace());
    let busy = after.busy.saturating_sub(before.busy);
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(i, _)| *i);
    let samples = results.into_iter().map(|(_, sample)| sample).collect::<Result<Vec<_>, _>>()?;
    let sum = |f: &dyn Fn(&Sample) -> f64| samples.iter().map(f).sum::<f64>();
    let streams = load.concurrency.min(load.questions) as f64;
    let total_tokens: usize = samples.iter().map(|s| s.tokens.len()).sum();
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    Ok(Measured {
        throughput_tok_s: ratio(total_tokens as f64, wall.as_secs_f64()),
        prefill_tok_s: streams * ratio(sum(&|s| s.usage.prompt_tokens as f64), sum(&|s| s.usage.prefill_s)),
        decode_tok_s: streams * ratio(sum(&|s| s.tokens.len() as f64 - 1.0), sum(&|s| s.usage.decode_s)),
        ttft_ms: Percentiles::of(samples.iter().map(|s| s.ttft_ms).collect()),
        itl_ms: Percentiles::of(samples.iter().flat_map(|s| s.itl_ms.iter().copied()).collect()),
        device_utilization: ratio(busy.as_secs_f64(), wall.as_secs_f64()),
        allocations_per_token: ratio((after.allocations - before.allocations) as f64, total_tokens as f64),
        encode_ms_per_step: ratio(
            (paced.encoding.saturating_sub(pace.encoding)).as_secs_f64() * 1e3,
            (paced.steps - pace.steps) as f64,
        ),
        peak_memory_bytes: machine::peak_memory(),
        wall_s: wall.as_secs_f64(),
        total_tokens,
        output_hash: hash(samples.iter().flat_map(|s| &s.tokens)),
    })
}

/// FNV-1a over token ids, in hexadecimal.
pub(crate) fn hash<'a>(tokens: impl Iterator<Item = &'a u32>) -> String {
    let bytes = tokens.flat_map(|t| t.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

/// A prompt of pseudo-random tokens that shares no prefix with that of another index.
pub(crate) fn prompt(model: &Model, index: usize, tokens: usize) -> Vec<u32> {
    let vocab = model.engine().info().vocab as u64;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index as u64 + 1);
    (0..tokens)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocab) as u32
        })
        .collect()
}

/// One greedy request with an answer of exactly `max_tokens`.
pub(crate) fn ask(model: &Model, prompt: Vec<u32>, max_tokens: usize) -> Result<Sample, BenchError> {
    let request = Request { prompt, max_tokens: Some(max_tokens), ignore_eos: true, ..Request::default() };
    let start = Instant::now();
    let mut stream = model.engine().submit(request)?;
    let (mut times, mut tokens) = (Vec::new(), Vec::new());
    loop {
        match stream.next_blocking() {
            Some(Event::Prompt(_)) => {}
            Some(Event::Token(token)) => {
                times.push(start.elapsed().as_secs_f64() * 1e3);
                tokens.push(token.id);
            }
            Some(Event::Finished(finish)) => {
                let ttft_ms = times.first().copied().unwrap_or(0.0);
                let itl_ms = times.windows(2).map(|w| w[1] - w[0]).collect();
                return Ok(Sample { usage: finish.usage, ttft_ms, itl_ms, tokens });
            }
            Some(Event::Failed(error)) => return Err(error.into()),
            None => return Err(BenchError::Unfinished),
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
