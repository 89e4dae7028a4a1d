//! One sequence at a time, without an engine: logits, perplexity, and how far two models are apart.

use crate::inputs::{Packer, Sequences};
use crate::{BLOCK_TOKENS, KvCache, Model, ModelError, Scratch};
use mlx_serving_device::Device;
use mlx_serving_metal_layer::{Allocate, InFlight, MetalLayer};
use std::sync::Arc;
use std::time::Duration;

/// A step that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(600);

/// Feeds one sequence to a model, chunk by chunk.
pub struct Evaluator<'a> {
    model: &'a Model,
    layer: &'a mut MetalLayer,
    cache: KvCache,
    scratch: Scratch,
    context: usize,
    chunk: usize,
}

impl<'a> Evaluator<'a> {
    /// Room for `context` tokens, taken `chunk` at a time.
    ///
    /// # Errors
    /// There is not so much memory, or the model has no head.
    pub fn new(
        model: &'a Model,
        device: &Arc<dyn Device>,
        layer: &'a mut MetalLayer,
        context: usize,
        chunk: usize,
    ) -> Result<Self, ModelError> {
        if !model.generates() {
            return Err(ModelError::NoHead);
        }
        let allocate: &dyn Allocate = layer.allocate.as_ref();
        let cache = KvCache::new(model.blueprint(), device.as_ref(), allocate, context.div_ceil(BLOCK_TOKENS))?;
        let scratch = Scratch::new(model.blueprint(), device.as_ref(), allocate, chunk, chunk)?;
        Ok(Self { model, layer, cache, scratch, context, chunk })
    }

    /// Logits at every position of `tokens`, row by row: `each` gets the position and the vocabulary's logits.
    pub fn logits(&mut self, tokens: &[u32], each: impl FnMut(usize, &[f32])) -> Result<(), ModelError> {
        self.logits_of(tokens, tokens.len(), each)
    }

    /// Computes logits as [`Self::logits`] does, with only the first `prompt` tokens as the prompt: dynamic rope scaling tells them apart.
    pub fn logits_of(
        &mut self,
        tokens: &[u32],
        prompt: usize,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), ModelError> {
        self.check(tokens)?;
        let mut start = 0;
        for chunk in tokens.chunks(self.chunk) {
            let logits = self.chunk(chunk, start, prompt)?;
            logits.chunks_exact(self.model.vocab()).enumerate().for_each(|(i, row)| each(start + i, row));
            start += chunk.len();
        }
        Ok(())
    }

    /// Refuses tokens that the model does not know, and more than there is room for.
    fn check(&self, tokens: &[u32]) -> Result<(), ModelError> {
        let vocab = self.model.vocab();
        if let Some(&token) = tokens.iter().find(|&&t| t as usize >= vocab) {
            return Err(ModelError::Token { token, last: vocab - 1 });
        }
        match tokens.len() <= self.context {
            true => Ok(()),
            false => Err(ModelError::Context { tokens: tokens.len(), room: self.context }),
        }
    }

    /// Logits of a chunk of checked tokens that begins at `start`, (tokens, vocabulary).
    fn chunk(&mut self, chunk: &[u32], start: usize, prompt: usize) -> Result<Vec<f32>, ModelError> {
        self.step(chunk, start, prompt)?;
        let mut logits = vec![0f32; chunk.len() * self.model.vocab()];
        self.scratch.read_logits(0, &mut logits)?;
        Ok(logits)
    }

    fn step(&mut self, chunk: &[u32], start: usize, prompt: usize) -> Result<(), ModelError> {
        let rows = chunk.len();
        let mut sequences = Sequences { logit_rows: (0..rows as u32).collect(), ..Sequences::default() };
        sequences.push(chunk, start, prompt, 0..(start + rows).div_ceil(BLOCK_TOKENS) as u32);
        self.layer.submit.reserve_inputs(sequences.bytes())?;
        let mut slot = self.layer.submit.acquire()?;
        let step = Packer::new(&slot.inputs, &slot.inputs).sequences(&sequences)?.step(&sequences);
        let allocate = self.layer.allocate.clone();
        let encoder = slot.encoder.as_mut();
        let temporaries = self.model.forward(encoder, &step, &self.cache, &self.scratch, allocate.as_ref())?;
        self.scratch.make_readable(encoder, rows)?;
        let in_flight: InFlight = self.layer.submit.submit(slot, &[])?;
        drop(temporaries);
        self.layer.submit.complete(&in_flight, LIMIT)?;
        self.model.wait_resident(LIMIT)
    }
}

/// Mean negative log-likelihood of each next token, and its exponential.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// Natural units per token.
    pub nats: f64,
    /// exp(nats).
    pub perplexity: f64,
    /// Tokens predicted.
    pub tokens: usize,
}

/// Perplexity over token ids, in windows of `context` tokens that do not overlap; the first token of a window is not predicted.
pub fn perplexity(evaluator: &mut Evaluator<'_>, tokens: &[u32], context: usize) -> Result<Perplexity, ModelError> {
    let (mut sum, mut count) = (0f64, 0usize);
    for window in tokens.chunks(context.max(2)) {
        evaluator.logits(window, |position, logits| {
            if let Some(&next) = window.get(position + 1) {
                sum -= log_softmax(logits)[next as usize];
                count += 1;
            }
        })?;
    }
    let nats = sum / count.max(1) as f64;
    Ok(Perplexity { nats, perplexity: nats.exp(), tokens: count })
}

/// Distance of one model's predictions from another's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// Mean Kullback–Leibler divergence from the reference, nats a token.
    pub mean_kl: f64,
    /// Share of positions whose most likely token is the same.
    pub top1_agreement: f64,
    /// Positions compared.
    pub positions: usize,
}

/// Compares predictions over token ids, in windows of `context` tokens.
pub fn divergence(
    reference: &mut Evaluator<'_>,
    other: &mut Evaluator<'_>,
    tokens: &[u32],
    context: usize,
) -> Result<Divergence, ModelError> {
    let (mut kl, mut same, mut positions) = (0f64, 0usize, 0usize);
    let (vocab, rows) = (reference.model.vocab(), reference.chunk.min(other.chunk));
    if other.model.vocab() != vocab {
        return Err(ModelError::Vocabularies { reference: vocab, other: other.model.vocab() });
    }
    for window in tokens.chunks(context.max(1)) {
        reference.check(window)?;
        other.check(window)?;
        // In step, so that only a chunk's logits are held at a time.
        for (i, chunk) in window.chunks(rows).enumerate() {
            let expected = reference.chunk(chunk, i * rows, window.len())?;
            let found = other.chunk(chunk, i * rows, window.len())?;
            for (p, q) in expected.chunks_exact(vocab).zip(found.chunks_exact(vocab)) {
                same += usize::from(argmax(p) == argmax(q));
                let (p, q) = (log_softmax(p), log_softmax(q));
                kl += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
                positions += 1;
            }
        }
    }
    let count = positions.max(1) as f64;
    Ok(Divergence { mean_kl: kl / count, top1_agreement: same as f64 / count, positions })
}

/// Natural log-probabilities.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
    logits.iter().map(|&l| f64::from(l - max) - sum.ln()).collect()
}

/// The largest value's place, the first among equals.
fn argmax(values: &[f32]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, v)| if *v > values[best] { i } else { best })
}
