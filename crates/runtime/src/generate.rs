//! The part of a model that servers see.

use crate::embed::Embedder;
use crate::prompt::{Input, Prepared, PromptError};
use futures::stream::BoxStream;
use mlx_serving_engine::{EngineError, Event, Health, Info, Request, Sampling};
use mlx_serving_grammar::Structure;
use mlx_serving_metal_layer::LayerStats;
use mlx_serving_metrics::Labeled;
use mlx_serving_text::Tokenizer;
use std::fmt;

/// Events of one request, the end included. Dropping them cancels the request.
pub type Events = BoxStream<'static, Event>;

/// Facts about a model for as long as it is open.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// Its name in requests.
    pub id: String,
    /// Seconds since 1970 when it was opened.
    pub created: u64,
    /// Bounds of what a request may ask.
    pub info: Info,
    /// Its own sampling parameters, for requests that name none.
    pub defaults: Sampling,
    /// The way in which it makes embeddings.
    pub embedder: Embedder,
}

/// A model that answers.
pub trait Generate: fmt::Debug + Send + Sync + 'static {
    /// Facts about it.
    fn card(&self) -> &Card;

    /// Its tokenizer.
    fn tokenizer(&self) -> &Tokenizer;

    /// An input made ready for answers of this structure, if the context can hold it. May take long on long texts: blocks the thread, at
    /// most for as long as `goes_on` returns true.
    ///
    /// # Errors
    /// The input cannot be a prompt of this model, or the structure no grammar.
    fn prepare(
        &self,
        input: Input,
        structure: Option<&Structure>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Prepared, PromptError>;

    /// The token ids of an input, as [`Self::prepare`] makes them.
    ///
    /// # Errors
    /// The input cannot be a prompt of this model.
    fn prompt(&self, input: Input, goes_on: &mut dyn FnMut() -> bool) -> Result<Vec<u32>, PromptError> {
        self.prepare(input, None, goes_on).map(|prepared| prepared.ids)
    }

    /// Takes all requests, or none.
    ///
    /// # Errors
    /// A request is out of bounds, or there is no room.
    fn submit(&self, requests: Vec<Request>) -> Result<Vec<Events>, EngineError>;

    /// Its health.
    fn health(&self) -> Health;

    /// Requests that run or wait.
    fn live(&self) -> usize;

    /// It refuses new requests.
    fn draining(&self) -> bool;

    /// Refuses new requests from here on; those accepted go on.
    fn drain(&self);

    /// Statistics of its optimizations.
    fn stats(&self) -> LayerStats;

    /// Writes its metrics.
    fn tell_metrics(&self, to: &mut Labeled<'_>);
}
