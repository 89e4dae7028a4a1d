use crate::events::Sender;
use crate::handle::Live;
use crate::{EngineError, Event, Finish, FinishReason, Logprobs, Metrics, PromptToken, Request, TokenEvent, Usage};
use mlx_serving_text::{AnswerText, StopMatcher, Tokenizer};
use std::time::Instant;

/// A request that runs or waits: the receiver of its events, and what turns its tokens into text.
#[derive(Debug)]
pub(crate) struct Client {
    /// Without its prompt, which its [`Progress`](crate::scheduler::Progress) has.
    pub request: Request,
    prompt_tokens: usize,
    pub seed: u64,
    /// Row of its token counts in the sampling history, if it penalizes.
    pub slot: Option<u32>,
    /// Its prompt is in that row.
    pub observed: bool,
    /// Times that it was computed again after a failed step.
    pub retries: u32,
    /// Prompt tokens found in the prefix cache when it was first admitted.
    pub cached: usize,
    events: Sender,
    text: AnswerText,
    arrived: Instant,
    started: Option<Instant>,
    prompt_told: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    completion: usize,
    live: Live,
}

impl Client {
    /// A request that has arrived, and its prompt.
    pub(crate) fn new(
        mut request: Request,
        stops: StopMatcher,
        events: Sender,
        live: Live,
        arrived: Instant,
        tokenizer: &Tokenizer,
    ) -> (Self, Vec<u32>) {
        let seed = request.sampling.seed.unwrap_or_else(random_seed);
        let prompt = std::mem::take(&mut request.prompt);
        let client = Self {
            text: AnswerText::new(tokenizer, (!request.begins_text).then_some(&*prompt), stops),
            request,
            prompt_tokens: prompt.len(),
            seed,
            slot: None,
            observed: false,
            retries: 0,
            cached: 0,
            events,
            arrived,
            started: None,
            prompt_told: None,
            first_token: None,
            last_token: None,
            completion: 0,
            live,
        };
        (client, prompt)
    }

    /// Nobody reads its answer any more: the receiver has gone away, or was cut off.
    pub(crate) fn gone(&self) -> bool {
        self.events.unwanted()
    }

    /// Any of its tokens may be its last, not only the one that reaches its length.
    pub(crate) fn may_stop(&self) -> bool {
        !self.request.ignore_eos || !self.request.stop.is_empty()
    }

    /// The first step with its rows was submitted.
    pub(crate) fn start(&mut self, cached: usize) {
        if self.started.is_none() {
            self.started = Some(Instant::now());
            self.cached = cached;
        }
    }

    /// Sends tokens of the prompt.
    pub(crate) fn prompt(&mut self, tokens: Vec<PromptToken>) {
        if !tokens.is_empty() {
            self.prompt_told = Some(Instant::now());
            self.events.send(Event::Prompt(tokens));
        }
    }

    /// Sends a token; says if the answer ends with it.
    pub(crate) fn token(
        &mut self,
        id: u32,
        eos: bool,
        logprobs: Option<Logprobs>,
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
        self.completion += 1;
        metrics.generation_tokens.inc();
        let eos = eos && !self.request.ignore_eos;
        let step = match eos {
            true => self.text.push_hidden(id),
            false => self.text.push(id).map_err(|e| EngineError::Device(e.to_string()))?,
        };
        // A receiver that has gone is noticed before the next step.
        self.events.send(Event::Token(TokenEvent { id, text: step.text, offset: step.offset, logprobs }));
        Ok((eos || step.stopped).then_some(FinishReason::Stop))
    }

    /// Sends the end.
    pub(crate) fn finish(mut self, reason: FinishReason, metrics: &Metrics) {
        let text = self.text.finish();
        let usage = self.usage();
        metrics.finish(reason, &self.request, &usage);
        // Who reads it may send the next request at once.
        drop(self.live);
        self.events.send(Event::Finished(Finish { reason, text, usage }));
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

    fn usage(&self) -> Usage {
        let between = |a: Option<Instant>, b: Option<Instant>| match (a, b) {
            (Some(a), Some(b)) => (b - a).as_secs_f64(),
            _ => 0.0,
        };
        Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached,
            completion_tokens: self.completion,
            queue_s: between(Some(self.arrived), self.started),
            prefill_s: between(self.started, self.first_token.or(self.prompt_told)),
            decode_s: between(self.first_token, self.last_token),
        }
    }
}

/// A seed for a request that brought none.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
