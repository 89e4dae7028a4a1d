//! A model that is open.

use crate::answer::{Answer, Parameters};
use crate::conversation::Conversation;
use crate::device::Lease;
use crate::embed::Embedder;
use crate::error::RuntimeError;
use crate::generate::{Card, Events, Generate};
use crate::memory::Reservation;
use crate::prompt::{Input, Prepared, PromptError, Prompter, Structures};
use futures::stream::{self, StreamExt};
use mlx_serving_checkpoint::Embedding;
use mlx_serving_engine::{Engine, EngineError, Event, Health, Request, Sampling, Stream};
use mlx_serving_grammar::{Compiler, Grammar, GrammarError, Structure};
use mlx_serving_metal_layer::LayerStats;
use mlx_serving_metrics::Labeled;
use mlx_serving_text::{CallFormat, ChatTemplate, Formats, Tokenizer};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time to find the tool whose schema is at fault.
const SEARCH: Duration = Duration::from_secs(5);

/// A running engine with its tokenizer and chat template.
#[derive(Debug)]
pub struct Model {
    card: Card,
    engine: Engine,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    formats: Formats,
    /// Tokens that end its answers.
    ends: Vec<u32>,
    /// Made for the first structure: that takes long.
    compiler: OnceLock<Result<Compiler, GrammarError>>,
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
        let card = Card { id, created, info: engine.info().clone(), defaults, embedder: Embedder::default() };
        let formats = template.as_ref().map(|template| template.formats(&tokenizer)).unwrap_or_default();
        Self { card, engine, tokenizer, template, formats, ends: Vec::new(), compiler: OnceLock::new(), held: None }
    }

    /// Reads its answers in these formats, whatever its template says.
    pub(crate) fn with_formats(self, formats: Formats) -> Self {
        Self { formats, ..self }
    }

    /// Formats in which it writes reasoning and calls.
    pub fn formats(&self) -> Formats {
        self.formats
    }

    /// Ends its answers with these tokens: structures need to know them.
    pub(crate) fn ending_with(self, ends: Vec<u32>) -> Self {
        Self { ends, ..self }
    }

    /// The grammar of the first structure that is one.
    fn grammar(
        &self,
        structures: &[Structure],
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Grammar>, GrammarError> {
        let Some((best, others)) = structures.split_first() else { return Ok(None) };
        let compiler = self.compiler.get_or_init(|| Compiler::new(&self.tokenizer, self.card.info.vocab, &self.ends));
        let compiler = compiler.as_ref().map_err(Clone::clone)?;
        let mut compile = |structure: &Structure| compiler.compile(structure, goes_on);
        match compile(best) {
            Err(error @ GrammarError::Structure { .. }) => {
                others.iter().find_map(|other| compile(other).ok()).map(Some).ok_or(error)
            }
            outcome => outcome.map(Some),
        }
    }

    /// The first tool whose schema is no grammar by itself, if that can be found out soon: nobody can tell from the grammar of all tools.
    fn tool_at_fault(
        &self,
        calls: CallFormat,
        structures: &Structures,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Option<PromptError> {
        let deadline = Instant::now() + SEARCH;
        structures.tools.iter().find_map(|(index, tool)| {
            let alone = Structure::Lark(calls.lark(&self.tokenizer, std::slice::from_ref(tool), false));
            match self.grammar(&[alone], &mut || goes_on() && Instant::now() < deadline) {
                Err(fault @ GrammarError::Structure { .. }) => {
                    Some(PromptError::Tool { name: tool.name.clone(), index: *index, fault })
                }
                _ => None,
            }
        })
    }

    /// Keeps a part of the memory and of a device for as long as the model is open.
    pub(crate) fn holding(self, reservation: Reservation, lease: Lease) -> Self {
        Self { held: Some((reservation, lease)), ..self }
    }

    /// Has it make embeddings as its files say, if they do.
    pub(crate) fn embedding(mut self, embedding: Option<Embedding>) -> Self {
        self.card.embedder = embedding.map(Embedder::from).unwrap_or_default();
        self
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
        let begins_text = match &input {
            Input::Conversation { conversation, .. } => !conversation.continue_final_message,
            Input::Text { .. } | Input::Ids(_) => false,
        };
        let Prepared { ids: prompt, format, grammar } = self.prepare(input, None, &mut || true)?;
        let request = Request {
            sampling: parameters.sampling.clone(),
            max_tokens: Some(parameters.max_tokens(prompt.len(), self.card.info.max_context)),
            stop: parameters.stop.clone(),
            begins_text,
            format,
            grammar,
            prompt,
            ..Request::default()
        };
        Ok(Answer::new(self.engine.submit(request)?))
    }

    /// The embedding of an input, as wide as the model. Blocks the thread until it is there.
    ///
    /// # Errors
    /// The input cannot be a prompt, there is no room, or computing it fails.
    pub fn embed(&self, input: Input) -> Result<Vec<f32>, RuntimeError> {
        let prompt = self.prompt(input, &mut || true)?;
        let mut events = self.engine.submit(self.card.embedder.request(prompt))?;
        loop {
            match events.next_blocking() {
                Some(Event::Embedding(pooled)) => return Ok(self.card.embedder.vector(pooled, self.card.info.width)),
                Some(Event::Failed(error)) => return Err(error.into()),
                Some(_) => {}
                None => return Err(EngineError::Stopped("it ended without an embedding".into()).into()),
            }
        }
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

    fn prepare(
        &self,
        input: Input,
        structure: Option<&Structure>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Prepared, PromptError> {
        let (model, info) = (self.card.id.as_str(), &self.card.info);
        let (tokenizer, template, formats) = (&self.tokenizer, self.template.as_ref(), self.formats);
        let prompter = Prompter { model, tokenizer, template, formats, info };
        let (mut prepared, structures) = prompter.prepare(input, structure, goes_on)?;
        prepared.grammar = match self.grammar(&structures.list, goes_on) {
            Err(fault @ GrammarError::Structure { .. }) => {
                let tool = prepared.format.calls().and_then(|calls| self.tool_at_fault(calls, &structures, goes_on));
                return Err(tool.unwrap_or(fault.into()));
            }
            outcome => outcome?,
        };
        Ok(prepared)
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
