//! A model that is open.

use crate::generate::{Card, Events, Generate};
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
        Self { card, engine, tokenizer, template }
    }

    /// It has a chat template.
    pub fn chats(&self) -> bool {
        self.template.is_some()
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
        self.engine.health()
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

fn events(stream: Stream) -> Events {
    stream::unfold(stream, |mut stream| async move { Some((stream.next().await?, stream)) }).boxed()
}
