//! A model in this process as a target.

use super::{Answer, Fault, PREFIX, Target, stream};
use crate::error::BenchError;
use crate::load::Load;
use mlx_serving_engine::{Event, Request, Usage};
use mlx_serving_runtime::Model;
use std::time::{Duration, Instant};

/// An open model. Prompts are random tokens without a chat template, so that their lengths are exact.
pub(crate) struct InProcess<'a> {
    model: &'a Model,
    seed: u64,
    /// Tokens that all prompts begin with.
    prefix: Vec<u32>,
}

impl<'a> InProcess<'a> {
    pub(crate) fn new(model: &'a Model, load: &Load) -> Self {
        Self { model, seed: load.seed, prefix: tokens(model, load.seed, PREFIX, load.prefix_tokens()) }
    }
}

impl Target for InProcess<'_> {
    type Talk = (usize, Vec<u32>);

    fn begin(&self, conversation: usize) -> Self::Talk {
        (conversation, self.prefix.clone())
    }

    fn say(&self, (conversation, said): &mut Self::Talk, turn: usize, new: usize) {
        said.extend(tokens(self.model, self.seed, stream(*conversation, turn), new));
    }

    fn ask(&self, (_, said): &mut Self::Talk, max_tokens: usize) -> Result<Answer, Fault> {
        let sample = ask(self.model, said.clone(), max_tokens).map_err(Fault::Ends)?;
        said.extend(&sample.tokens);
        Ok(sample.into())
    }
}

/// One answer.
pub(crate) struct Sample {
    pub usage: Usage,
    /// Submission to first token.
    pub ttft_ms: f64,
    times: Vec<Instant>,
    /// The answer's token ids.
    pub tokens: Vec<u32>,
}

impl From<Sample> for Answer {
    fn from(sample: Sample) -> Self {
        let usage = &sample.usage;
        let prefill = Duration::try_from_secs_f64(usage.prefill_s).unwrap_or_default();
        Self {
            prompt_tokens: Some(usage.prompt_tokens),
            tokens: sample.tokens.len(),
            is_told: true,
            ended_by_length: None,
            times: sample.times,
            computed: Some((usage.prompt_tokens.saturating_sub(usage.cached_tokens), prefill)),
            content: sample.tokens.iter().flat_map(|token| token.to_le_bytes()).collect(),
        }
    }
}

impl Sample {
    /// Milliseconds between one token and the next.
    pub(crate) fn itl_ms(&self) -> impl Iterator<Item = f64> {
        self.times.windows(2).map(|w| (w[1] - w[0]).as_secs_f64() * 1e3)
    }
}

/// One greedy request with an answer of exactly `max_tokens`.
pub(crate) fn ask(model: &Model, prompt: Vec<u32>, max_tokens: usize) -> Result<Sample, BenchError> {
    let request = Request { prompt, max_tokens: Some(max_tokens), ignore_eos: true, ..Request::default() };
    let start = Instant::now();
    let mut stream = model.engine().submit(request)?;
    let (mut times, mut tokens) = (Vec::new(), Vec::new());
    loop {
        match stream.next_blocking() {
            Some(Event::Prompt(_) | Event::Embedding(_)) => {}
            Some(Event::Token(token)) => {
                times.push(Instant::now());
                tokens.push(token.id);
            }
            Some(Event::Finished(finish)) => {
                let ttft_ms = times.first().map_or(0.0, |first| (*first - start).as_secs_f64() * 1e3);
                return Ok(Sample { usage: finish.usage, ttft_ms, times, tokens });
            }
            Some(Event::Failed(error)) => return Err(error.into()),
            None => return Err(BenchError::Unfinished),
        }
    }
}

/// A prompt of pseudo-random tokens that shares no prefix with that of another index.
pub(crate) fn prompt(model: &Model, index: usize, length: usize) -> Vec<u32> {
    tokens(model, 0, index as u64, length)
}

/// Pseudo-random tokens of a stream of a seed.
fn tokens(model: &Model, seed: u64, stream: u64, length: usize) -> Vec<u32> {
    let vocab = model.engine().info().vocab as u64;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(stream + 1) ^ seed.wrapping_mul(0xd1b5_4a32_d192_ed03);
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocab) as u32
        })
        .collect()
}
