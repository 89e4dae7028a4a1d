//! A model that is open.

use crate::answer::{Answer, Parameters};
use crate::conversation::Conversation;
use crate::device::Lease;
use crate::error::RuntimeError;
use crate::generate::{Card, Events, Generate};
use crate::memory::Reservation;
use crate::prompt::{Input, PromptError, Prompter};
use futures::stream::{self, StreamExt};
use mlx_serving_engine::{Engine, EngineError, Health, Request, Sampling, Stream};
use mlx_serving_metal_layer::LayerStats;
use mlx_serving_metrics::Labeled;
use mlx_serving_text::{ChatTemplate, Tokenizer};
use std::time::{SystemTime, UNIX_EPOCH};

/// A running engine with its tokenizer and chat template.
#[derive(Debug)]
pub struct Model {
    card: Card,
    engine: Engine,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    /// Memory and device, released after the engine, which uses them.
    held: Option<(Reservation, Lease)>,
}

impl Model {
    /// A model under the name `id`; `defaults` are its own sampling parameters.
    pub fn new(
        id: String,
        engine: Engine,
        tokenizer: Tokenizer,
        template: Option<ChatTemplate>,
        defaults: Sampling,
    ) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let card = Card { id, created, info: engine.info().clone(), defaults };
        Self { card, engine, tokenizer, template, held: None }
    }

    /// Keeps a part of the memory and of a device for as long as the model is open.
    pub(crate) fn holding(self, reservation: Reservation, lease: Lease) -> Self {
        Self { held: Some((reservation, lease)), ..self }
    }

    /// Answers a conversation.
    ///
    /// # Errors
    /// The conversation cannot be a prompt, a parameter is out of bounds, or there is no room.
    pub fn chat(&self, conversation: Conversation, parameters: &Parameters) -> Result<Answer, RuntimeError> {
        self.complete(Input::Conversation { conversation, special: false }, parameters)
    }

    /// Answers an input, or goes on where it ends.
    ///
    /// # Errors
    /// The input cannot be a prompt, a parameter is out of bounds, or there is no room.
    pub fn complete(&self, input: Input, parameters: &Parameters) -> Result<Answer, RuntimeError> {
        let begins_text = matches!(input, Input::Conversation { .. });
        let prompt = self.prompt(input, &mut || true)?;
        let request = Request {
            sampling: parameters.sampling.clone(),
            max_tokens: Some(parameters.max_tokens(prompt.len(), self.card.info.max_context)),
            stop: parameters.stop.clone(),
            begins_text,
            prompt,
            ..Request::default()
        };
        Ok(Answer::new(self.engine.submit(request)?))
    }

    /// The token ids of a text, the model's begin and end tokens around it.
    ///
    /// # Errors
    /// It cannot be encoded, or the context cannot hold it.
    pub fn tokenize(&self, text: impl Into<String>) -> Result<Vec<u32>, RuntimeError> {
        Ok(self.prompt(Input::Text { text: text.into(), special: true }, &mut || true)?)
    }

    /// The model's own sampling parameters.
    pub fn parameters(&self) -> Parameters {
        Parameters { sampling: self.card.defaults.clone(), ..Parameters::default() }
    }

    /// Ends the engine after the steps in flight, and releases its memory. Answers that go on fail.
    pub fn close(self) {}

    /// True if it has a chat template.
    pub fn chats(&self) -> bool {
        self.template.is_some()
    }

    /// Says whether its chat template can be used.
    ///
    /// # Errors
    /// It has none, or one at fault.
    pub fn check_chat(&self) -> Result<(), PromptError> {
        let template = self.template.as_ref().ok_or_else(|| PromptError::NoTemplate { model: self.card.id.clone() })?;
        Ok(template.check(false)?)
    }

    /// Its engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl Generate for Model {
    fn card(&self) -> &Card {
        &self.card
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn prompt(&self, input: Input, goes_on: &mut dyn FnMut() -> bool) -> Result<Vec<u32>, PromptError> {
        let (model, info) = (self.card.id.as_str(), &self.card.info);
        Prompter { model, tokenizer: &self.tokenizer, template: self.template.as_ref(), info }.ids(input, goes_on)
    }

    fn submit(&self, requests: Vec<Request>) -> Result<Vec<Events>, EngineError> {
        Ok(self.engine.submit_all(requests)?.into_iter().map(events).collect())
    }

    fn health(&self) -> Health {
        let health = self.engine.health();
        match self.held.as_ref().and_then(|(_, lease)| lease.lost()) {
            // An idle engine would learn of it with its next step.
            Some(reason) if health.alive => Health { alive: false, reason: Some(reason.to_owned()), ..health },
            _ => health,
        }
    }

    fn live(&self) -> usize {
        self.engine.live()
    }

    fn draining(&self) -> bool {
        self.engine.draining()
    }

    fn drain(&self) {
        self.engine.drain();
    }

    fn stats(&self) -> LayerStats {
        self.engine.stats()
    }

    fn tell_metrics(&self, to: &mut Labeled<'_>) {
        self.engine.tell_metrics(to);
    }
}

fn events(mut stream: Stream) -> Events {
    stream::poll_fn(move |context| stream.poll_next(context)).boxed()
}
