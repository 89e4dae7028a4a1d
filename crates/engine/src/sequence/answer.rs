//! Sends the results of a sequence's steps.

use super::Sequence;
use super::constraint::Constraint;
use crate::error::EngineError;
use crate::metrics::Metrics;
use crate::request::{Event, Finish, FinishReason, Logprobs, PromptToken, TokenEvent, Usage};
use crate::schedule::plan::Results;
use std::time::Instant;

impl Sequence {
    /// Takes the results of its part of a completed step, after which so many of its positions are computed, shares the blocks that are
    /// full then if it may, and sends what there is to send. Says if its answer ends.
    pub(crate) fn receive(
        &mut self,
        results: Result<Results, EngineError>,
        masked: bool,
        completed: usize,
        share: bool,
        metrics: &Metrics,
    ) -> Result<Option<FinishReason>, EngineError> {
        let mut constraint = self.constraint.as_mut().filter(|_| masked);
        // Why there was no mask comes before what was sampled without one.
        let made = constraint.as_mut().map(|constraint| constraint.ordered()).transpose()?;
        let results = results?;
        let (sampled, mut must_end) = (results.sampled.is_some(), false);
        if let (Some((token, _)), Some(constraint), Some(made)) = (&results.sampled, constraint, made) {
            must_end = constraint.receive(made, self.tokens.len(), *token);
        }
        if sampled {
            self.forced = usize::MAX;
        }
        self.tell_prompt(results.scores, completed);
        if let (Some(pooler), Some(rows)) = (&mut self.pooler, results.hidden) {
            self.reading = false;
            pooler.take(&rows);
        }
        if let Some((token, _)) = results.sampled {
            self.pending -= 1;
            self.tokens.push(token);
        }
        if share {
            self.publish(completed);
        }
        let mut reason = match results.sampled {
            Some((token, logprobs)) => self.tell(token, logprobs, must_end, metrics)?,
            None => None,
        };
        while reason.is_none() && self.tokens.len() < self.end && self.append_forced() {
            metrics.grammar.forced.inc();
            reason = self.tell(self.tokens[self.tokens.len() - 1], None, false, metrics)?;
        }
        // The job for an order was handed out with it unless its token had to be waited for.
        if let Some(constraint) = self.constraint.as_mut().filter(|_| sampled) {
            constraint.hand_out(&self.tokens);
        }
        let at_end = completed >= self.prompt && self.tokens.len() >= self.end;
        if at_end && let Some(pooler) = &self.pooler {
            let embedding = pooler.finish();
            if !embedding.iter().all(|value| value.is_finite()) {
                let why = "the model's hidden states hold no finite values; its weights may be damaged";
                return Err(EngineError::Device(why.into()));
            }
            self.prompt_told = Some(Instant::now());
            self.events.send(Event::Embedding(embedding));
            return Ok(Some(FinishReason::Stop));
        }
        Ok(reason.or(at_end.then_some(FinishReason::Length)))
    }

    /// Appends a token that must come, unless others are in flight. The next step takes all of them as a chunk, as it does a prompt's, unless
    /// others share it that decode freely: these shall lose nothing.
    fn append_forced(&mut self) -> bool {
        let constraint = self.constraint.as_mut().filter(|_| self.pending == 0);
        let Some(token) = constraint.and_then(Constraint::forced) else { return false };
        self.forced = self.forced.min(self.tokens.len());
        self.tokens.push(token);
        // It was not sampled, so that the history does not count it.
        self.history = None;
        true
    }

    /// Sends the end.
    pub(crate) fn finish(mut self, reason: FinishReason, metrics: &Metrics) {
        let segments = self.text.finish();
        let index = self.text.stop().filter(|_| reason == FinishReason::Stop);
        let stop = index.and_then(|index| self.request.stop.get(index).cloned());
        let usage = self.usage();
        metrics.finish(reason, &self.request, &usage);
        // Who reads it may send the next request at once.
        drop(self.live);
        self.events.send(Event::Finished(Finish { reason, stop, segments, usage }));
    }

    /// Ends an answer that nobody reads any more.
    pub(crate) fn abandon(self, metrics: &Metrics) {
        match self.events.slow() {
            Some(error) => self.fail(error, metrics),
            None => self.finish(FinishReason::Canceled, metrics),
        }
    }

    /// Sends the end, in error.
    pub(crate) fn fail(self, error: EngineError, metrics: &Metrics) {
        metrics.fail();
        drop(self.live);
        self.events.send(Event::Failed(error));
    }

    /// Sends the tokens of the prompt whose log-probabilities are known once `completed` positions are computed.
    fn tell_prompt(&mut self, scores: Vec<Logprobs>, completed: usize) {
        let first = self.untold.start;
        self.untold.start = (completed + 1).clamp(first, self.untold.end);
        let told = &self.tokens[first..self.untold.start];
        if told.is_empty() {
            return;
        }
        // Nothing predicts the first.
        let unpredicted = std::iter::repeat_n(None, usize::from(first == 0));
        let logprobs = unpredicted.chain(scores.into_iter().map(Some));
        let told = told.iter().zip(logprobs).map(|(&id, logprobs)| PromptToken { id, logprobs }).collect();
        self.prompt_told = Some(Instant::now());
        self.events.send(Event::Prompt(told));
    }

    /// Sends the newest token; says if the answer ends with it. It ends with an end token that is ignored, too, where it `must_end`.
    fn tell(
        &mut self,
        id: u32,
        logprobs: Option<Logprobs>,
        must_end: bool,
        metrics: &Metrics,
    ) -> Result<Option<FinishReason>, EngineError> {
        let now = Instant::now();
        match self.last_token {
            Some(last) => metrics.inter_token.observe((now - last).as_secs_f64()),
            None => {
                metrics.time_to_first_token.observe((now - self.arrived).as_secs_f64());
                self.first_token = Some(now);
            }
        }
        self.last_token = Some(now);
        metrics.generation_tokens.inc();
        let eos = self.eos.contains(&id) && (must_end || !self.request.ignore_eos);
        let step = match eos {
            true => self.text.push_hidden(id),
            false => self.text.push(id).map_err(|e| EngineError::Device(e.to_string()))?,
        };
        if let Some(constraint) = &mut self.constraint {
            constraint.note(&self.tokens, self.text.reasons());
        }
        // A receiver that has gone is noticed before the next step.
        self.events.send(Event::Token(TokenEvent { id, segments: step.segments, offset: step.offset, logprobs }));
        Ok((eos || step.stopped).then_some(FinishReason::Stop))
    }

    fn usage(&self) -> Usage {
        let between = |a: Option<Instant>, b: Option<Instant>| match (a, b) {
            (Some(a), Some(b)) => (b - a).as_secs_f64(),
            _ => 0.0,
        };
        Usage {
            prompt_tokens: self.prompt,
            cached_tokens: self.cached.unwrap_or(0),
            completion_tokens: self.tokens.len() - self.prompt,
            queue_s: between(Some(self.arrived), self.started),
            prefill_s: between(self.started, self.first_token.or(self.prompt_told)),
            decode_s: between(self.first_token, self.last_token),
        }
    }
}
