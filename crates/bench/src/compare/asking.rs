//! The loads asked of an open model, and the figures of it.

use super::asked::{Conversations, Questions};
use crate::error::BenchError;
use crate::measured::{Percentiles, hash, ratio};
use crate::speed::{Part, Speed};
use crate::target::{Answer, Sample, ask, prompt};
use mlx_serving_engine::Pace;
use mlx_serving_runtime::{Model, machine};
use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Values that are kept of a run's distribution: more are thinned out by rank.
const KEPT: usize = 1000;
/// Seed of the first conversation's first turn.
const TALK: usize = 4 << 20;

/// Measurements of one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measurements {
    /// Generated tokens of all requests over the wall time of the run.
    pub throughput_tok_s: f64,
    /// Prompt tokens that were computed, neither found in the KV cache nor restored to it, over the time in which at least one request was
    /// between the first step of its prompt and its first token; null without any.
    pub prefill_tok_s: Option<f64>,
    /// Generated tokens after the first ones over the time in which at least one answer was between its first token and its last; null if
    /// answers have one token.
    pub decode_tok_s: Option<f64>,
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
    /// Share of the prompts' tokens that were found in the KV cache or restored to it.
    pub reused_share: f64,
    /// FNV-1a over all answers' token ids, in the order of the requests.
    pub output_hash: String,
    /// Milliseconds to the first token, of every request, in order of size.
    #[serde(skip)]
    pub every_ttft_ms: Vec<f64>,
    /// Milliseconds between tokens, likewise.
    #[serde(skip)]
    pub every_itl_ms: Vec<f64>,
}

/// Asks all questions, which have nothing in common.
pub(super) fn answers(model: &Model, q: &Questions) -> Result<Measurements, BenchError> {
    let meter = Meter::begin(model);
    let prompts = |i| prompt(model, i, q.prompt_tokens);
    let answers = ask_all(model, q.questions, q.concurrency, &prompts, q.max_tokens)?;
    Ok(meter.end(answers))
}

/// Holds all conversations, and measures their turns from the second on. The first turns' tokens come with the figures.
pub(super) fn talk(model: &Model, c: &Conversations) -> Result<(Measurements, Vec<u32>), BenchError> {
    let mut said: Vec<Vec<u32>> = vec![Vec::new(); c.conversations];
    let mut turn = |number: usize| -> Result<Vec<Sample>, BenchError> {
        for (i, said) in said.iter_mut().enumerate() {
            said.extend(prompt(model, TALK + i * c.turns + number, c.prompt_tokens));
        }
        let answers = ask_all(model, c.conversations, c.concurrency, &|i| said[i].clone(), c.max_tokens)?;
        for (said, answer) in said.iter_mut().zip(&answers) {
            said.extend(&answer.tokens);
        }
        Ok(answers)
    };
    let first = turn(0)?.into_iter().flat_map(|answer| answer.tokens).collect();
    let (meter, mut later) = (Meter::begin(model), Vec::new());
    for number in 1..c.turns {
        later.extend(turn(number)?);
    }
    Ok((meter.end(later), first))
}

/// Asks `count` requests: as many threads as requests at a time, each taking the next one. The answers are in order.
fn ask_all(
    model: &Model,
    count: usize,
    concurrency: usize,
    prompt: &(dyn Fn(usize) -> Vec<u32> + Sync),
    max_tokens: usize,
) -> Result<Vec<Sample>, BenchError> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<Sample, BenchError>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..concurrency.min(count) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count {
                        return;
                    }
                    let answer = ask(model, prompt(i), max_tokens);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((i, answer));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, answer)| answer).collect()
}

/// The readings at the beginning of what is measured.
struct Meter<'a> {
    model: &'a Model,
    busy: Duration,
    allocations: u64,
    pace: Pace,
    start: Instant,
}

impl<'a> Meter<'a> {
    fn begin(model: &'a Model) -> Self {
        let (counters, pace) = (model.engine().device().counters(), model.engine().pace());
        Self { model, busy: counters.busy, allocations: counters.allocations, pace, start: Instant::now() }
    }

    /// The figures of the answers since.
    fn end(self, answers: Vec<Sample>) -> Measurements {
        let wall = self.start.elapsed();
        let (after, paced) = (self.model.engine().device().counters(), self.model.engine().pace());
        let busy = after.busy.saturating_sub(self.busy);
        let encoding = paced.encoding.saturating_sub(self.pace.encoding);
        let sum = |f: &dyn Fn(&Sample) -> f64| answers.iter().map(f).sum::<f64>();
        let total_tokens = answers.iter().map(|a| a.tokens.len()).sum::<usize>();
        let prompts = sum(&|a| a.usage.prompt_tokens as f64);
        let (every_ttft_ms, every_itl_ms) = (
            answers.iter().map(|a| a.ttft_ms).collect::<Vec<_>>(),
            answers.iter().flat_map(Sample::itl_ms).collect::<Vec<_>>(),
        );
        let reused_share = ratio(sum(&|a| a.usage.cached_tokens as f64), prompts);
        let output_hash = hash(answers.iter().flat_map(|a| &a.tokens));
        let answers: Vec<Answer> = answers.into_iter().map(Answer::from).collect();
        let speed = |part: fn(&Answer) -> Option<Part>| {
            answers.iter().filter_map(part).fold(Speed::default(), Speed::with).tok_s()
        };
        Measurements {
            throughput_tok_s: ratio(total_tokens as f64, wall.as_secs_f64()),
            prefill_tok_s: speed(Answer::prefill),
            decode_tok_s: speed(Answer::decode),
            ttft_ms: Percentiles::of(every_ttft_ms.clone()),
            itl_ms: Percentiles::of(every_itl_ms.clone()),
            device_utilization: ratio(busy.as_secs_f64(), wall.as_secs_f64()),
            allocations_per_token: ratio((after.allocations - self.allocations) as f64, total_tokens as f64),
            encode_ms_per_step: ratio(encoding.as_secs_f64() * 1e3, (paced.steps - self.pace.steps) as f64),
            peak_memory_bytes: machine::peak_memory(),
            wall_s: wall.as_secs_f64(),
            total_tokens,
            reused_share,
            output_hash,
            every_ttft_ms: thinned(every_ttft_ms),
            every_itl_ms: thinned(every_itl_ms),
        }
    }
}

/// The values in order of size, or of too many those of evenly spaced ranks.
fn thinned(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    let (count, kept) = (values.len(), values.len().min(KEPT));
    (0..kept).map(|i| values[(2 * i + 1) * count / (2 * kept)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_thinned_by_rank() {
        assert_eq!(thinned(vec![3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        let many = thinned((0..100_000).rev().map(f64::from).collect());
        assert_eq!((many.len(), many[0], many[500], many[999]), (KEPT, 50.0, 50_050.0, 99_950.0));
        assert_eq!(thinned(Vec::new()), [0.0; 0]);
    }
}
