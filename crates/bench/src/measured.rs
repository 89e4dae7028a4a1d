//! Figures of a load.

use crate::goodput::{Goodput, Limits};
use crate::load::Plan;
use crate::run::{Outcome, Ran};
use crate::speed::Speed;
use serde::Serialize;

/// Requests that are listed one by one.
pub(crate) const LISTED: usize = 1000;

/// Mean, median and tail of some milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Mean.
    pub mean: f64,
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
        Self { mean: ratio(values.iter().sum(), values.len() as f64), p50: at(0.50), p95: at(0.95), p99: at(0.99) }
    }
}

/// Measurements of one run. What only the engine in this process tells is `None` of a server.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Generated tokens of all requests over the wall time of the run.
    pub throughput_tok_s: f64,
    /// Prompt tokens that were computed, not found in the prefix cache, over the time in which at least one request was between the first step
    /// of its prompt and its first token.
    pub prefill_tok_s: Option<f64>,
    /// Generated tokens after the first ones over the time in which at least one answer was between its first token and its last; `None` if no
    /// answer has two tokens, or if too few pieces of one came to tell.
    pub decode_tok_s: Option<f64>,
    /// Answered requests over the wall time of the run.
    pub requests_s: f64,
    /// Arrival to first token.
    pub ttft_ms: Percentiles,
    /// Between one token and the next of an answer; of a server, between the pieces that it sends. `None` if no answer came in two.
    pub itl_ms: Option<Percentiles>,
    /// Arrival to last token.
    pub e2e_ms: Percentiles,
    /// Requests that kept the limits; `None` without limits.
    pub goodput: Option<Goodput>,
    /// Time in which the device ran ops over the wall time of the run.
    pub device_utilization: Option<f64>,
    /// Heaps and buffers taken from the device during the run, per generated token.
    pub allocations_per_token: Option<f64>,
    /// Host time from a step's plan to its submission, per step.
    pub encode_ms_per_step: Option<f64>,
    /// The process's largest resident size so far; `None` where the system does not tell, too.
    pub peak_memory_bytes: Option<u64>,
    /// Wall time of the run.
    pub wall_s: f64,
    /// Generated tokens of all requests.
    pub total_tokens: usize,
    /// Tokens of all prompts; `None` if the server told it of none or not of all.
    pub total_prompt_tokens: Option<usize>,
    /// Source of the tokens' numbers.
    pub tokens_counted_by: Counted,
    /// Requests that were answered.
    pub answered: usize,
    /// Requests that were refused or failed.
    pub failed: usize,
    /// Those by cause, the most frequent first.
    pub failures: Vec<Failures>,
    /// Answers that ended before the tokens that were asked for; by their `finish_reason` where their tokens were not told.
    pub ended_early: usize,
    /// Requests of an open loop that were sent later than they arrived, because as many as may be were in flight.
    pub held_back: usize,
    /// Requests whose lengths were drawn longer than the model's context has room for, and cut.
    pub cut_to_context: usize,
    /// FNV-1a over all answers' token ids, of a server over their text, in the order of the requests.
    pub output_hash: String,
}

/// Source of the numbers of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Counted {
    /// The engine in this process.
    Engine,
    /// The `usage` of every answer.
    Usage,
    /// The pieces that came, at least for some answers: one may be several tokens.
    Pieces,
}

/// Failures of one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failures {
    /// Cause.
    pub cause: String,
    /// Their number.
    pub count: usize,
    /// Details of the first of them.
    pub example: String,
}

/// A request in a list of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Listed {
    /// Arrival after the beginning of the run.
    arrival_s: f64,
    ttft_ms: Option<f64>,
    e2e_ms: Option<f64>,
    prompt_tokens: Option<usize>,
    tokens: usize,
    ok: bool,
}

impl Measured {
    /// Figures of a run, without those of a device.
    pub(crate) fn of(plan: &Plan, ran: &Ran, limits: Option<&Limits>) -> Self {
        let wall_s = ran.wall.as_secs_f64();
        let (mut ttft, mut itl, mut e2e) = (Vec::new(), Vec::new(), Vec::new());
        let (mut total_tokens, mut prompts, mut kept, mut early) = (0, Some(0), 0, 0);
        let (mut prefill, mut decode) = (Some(Speed::default()), Some(Speed::default()));
        let (mut counted, mut hash, mut failures) = (Counted::Usage, Fnv::default(), Vec::<Failures>::new());
        for outcome in &ran.outcomes {
            let answer = match &outcome.answer {
                Ok(answer) => answer,
                Err(failure) => {
                    match failures.iter_mut().find(|known| known.cause == failure.cause) {
                        Some(known) => known.count += 1,
                        None => failures.push(Failures {
                            cause: failure.cause.clone(),
                            count: 1,
                            example: failure.detail.clone(),
                        }),
                    }
                    continue;
                }
            };
            let (first, last) = outcome.latencies().unwrap_or_default();
            let decoded = answer.decode();
            ttft.push(first);
            e2e.push(last);
            itl.extend(answer.times.windows(2).map(|w| (w[1] - w[0]).as_secs_f64() * 1e3));
            // What was not measured keeps no limit.
            let between =
                (answer.tokens > 1).then(|| decoded.map_or(f64::INFINITY, |part| (last - first) / part.tokens));
            kept += usize::from(limits.is_some_and(|limits| limits.are_kept(first, between, last)));
            total_tokens += answer.tokens;
            prompts = prompts.zip(answer.prompt_tokens).map(|(sum, n)| sum + n);
            prefill = prefill.zip(answer.prefill()).map(|(speed, part)| speed.with(part));
            decode = decode.zip(answer.decode()).map(|(speed, part)| speed.with(part));
            early += usize::from(answer.ended_before(outcome.max_tokens));
            if !answer.is_told {
                counted = Counted::Pieces;
            }
            hash.take(&answer.content);
        }
        failures.sort_by_key(|failures| std::cmp::Reverse(failures.count));
        let answered = ttft.len();
        Self {
            throughput_tok_s: ratio(total_tokens as f64, wall_s),
            prefill_tok_s: prefill.and_then(Speed::tok_s),
            decode_tok_s: decode.and_then(Speed::tok_s),
            requests_s: ratio(answered as f64, wall_s),
            ttft_ms: Percentiles::of(ttft),
            itl_ms: (!itl.is_empty()).then(|| Percentiles::of(itl)),
            e2e_ms: Percentiles::of(e2e),
            goodput: limits.map(|_| Goodput {
                share: ratio(kept as f64, ran.outcomes.len() as f64),
                requests_s: ratio(kept as f64, wall_s),
            }),
            device_utilization: None,
            allocations_per_token: None,
            encode_ms_per_step: None,
            peak_memory_bytes: None,
            wall_s,
            total_tokens,
            total_prompt_tokens: prompts.filter(|_| answered > 0),
            tokens_counted_by: counted,
            answered,
            failed: ran.outcomes.len() - answered,
            failures,
            ended_early: early,
            held_back: ran.outcomes.iter().filter(|outcome| outcome.is_held_back).count(),
            cut_to_context: plan.cut,
            output_hash: hash.to_string(),
        }
    }
}

impl Outcome {
    /// Arrival to first and to last token, ms; `None` for a request that failed.
    fn latencies(&self) -> Option<(f64, f64)> {
        let times = &self.answer.as_ref().ok()?.times;
        let ms = |at: std::time::Instant| at.saturating_duration_since(self.since).as_secs_f64() * 1e3;
        Some((ms(*times.first()?), ms(*times.last()?)))
    }

    pub(crate) fn listed(&self) -> Listed {
        let latencies = self.latencies();
        let answer = self.answer.as_ref().ok();
        Listed {
            arrival_s: rounded(self.at.as_secs_f64() * 1e3) / 1e3,
            ttft_ms: latencies.map(|(first, _)| rounded(first)),
            e2e_ms: latencies.map(|(_, last)| rounded(last)),
            prompt_tokens: answer.and_then(|answer| answer.prompt_tokens),
            tokens: answer.map_or(0, |answer| answer.tokens),
            ok: answer.is_some(),
        }
    }
}

/// FNV-1a.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3));
    }
}

impl std::fmt::Display for Fnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// FNV-1a over token ids, in hexadecimal.
pub(crate) fn hash<'a>(tokens: impl Iterator<Item = &'a u32>) -> String {
    let mut hash = Fnv::default();
    tokens.for_each(|token| hash.take(&token.to_le_bytes()));
    hash.to_string()
}

/// `a / b`, 0 where `b` is not above 0.
pub(crate) fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

/// To thousandths: of a millisecond, nobody needs more.
fn rounded(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let p = Percentiles::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((p.mean, p.p50, p.p95, p.p99), (50.5, 50.0, 95.0, 99.0));
        assert_eq!(Percentiles::of(vec![7.0]).p99, 7.0);
        assert_eq!(Percentiles::of(vec![]), Percentiles::default());
    }
}
