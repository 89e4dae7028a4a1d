//! A model that answers from a script: the events of each request are written down by the test, with gates where time matters.

use futures::StreamExt;
use futures::stream;
use mlx_serving_engine::{
    EngineError, Event, Finish, FinishReason, Health, Info, Logprobs, PromptToken, Request, Sampling, TokenEvent, Usage,
};
use mlx_serving_metal_layer::{DeviceStats, LayerStats, Switched};
use mlx_serving_metrics::Labeled;
use mlx_serving_runtime::{
    Card, Conversation, Embedder, Events, Generate, GrammarError, Input, Prepared, PromptError, Structure,
};
use mlx_serving_text::{Segment, TextError, Tokenizer};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Bytes of answers' tokens are their ids; these follow.
pub const END: u32 = 256;
pub const CONTEXT: usize = 100;
/// Width of its embeddings.
pub const WIDTH: usize = 4;

/// A vocabulary of single bytes and `<|end|>`, so that a text's ids are its bytes.
pub static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    // Bytes that cannot be printed are written as the characters from U+0100 on.
    let printed = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = 0x100..;
    let vocab: serde_json::Map<String, serde_json::Value> = (0..=255u8)
        .map(|byte| {
            let code = if printed(byte) { u32::from(byte) } else { others.next().unwrap() };
            (char::from_u32(code).unwrap().to_string(), byte.into())
        })
        .collect();
    let byte_level =
        serde_json::json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{
            "id": END, "content": "<|end|>", "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false,
        }],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": { "type": "BPE", "vocab": vocab, "merges": [] },
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    Tokenizer::from_dir(dir.path()).unwrap()
});

/// Opens once.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub fn open(&self) {
        self.0.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    async fn pass(&self) {
        drop(self.0.acquire().await.unwrap());
    }
}

/// One step of a request's script.
#[derive(Debug, Clone)]
pub enum Step {
    /// Text that one token completes.
    Say(&'static str),
    /// Segments that one token completes.
    Tell(Vec<Segment>),
    /// The end, with text that was held back.
    End(FinishReason, &'static str),
    /// The end by a stop string.
    Stop(&'static str),
    /// The end, in error.
    Fail(EngineError),
    /// The embedding of the prompt: see [`pooled`].
    Embed,
    /// Nothing comes until the gate is open.
    Wait(Gate),
    /// The events end without an end.
    Vanish,
}

pub use Step::{Embed, End, Fail, Say, Stop, Tell, Vanish, Wait};

/// One token that completes a part of some reasoning.
pub fn thinks(text: &str) -> Step {
    Tell(vec![Segment::Reasoning(text.into())])
}

/// The tokens of a call, one for its beginning and one for each part of its arguments.
pub fn calls(name: &str, arguments: &[&str]) -> Vec<Step> {
    let arguments = arguments.iter().map(|text| Tell(vec![Segment::Arguments((*text).into())]));
    std::iter::once(Tell(vec![Segment::Call { name: name.into() }])).chain(arguments).collect()
}

/// A call that breaks off behind its beginning and this markup.
pub fn breaks(name: &str, arguments: &str, markup: &str) -> Vec<Step> {
    [calls(name, &[arguments]), vec![Tell(vec![Segment::Unfinished(markup.into())])]].concat()
}

/// One token that completes markup of a call that cannot be read.
pub fn garbles(text: &str) -> Step {
    Tell(vec![Segment::Malformed(text.into())])
}

/// An answer of these tokens, ended by the model.
pub fn says(tokens: &[&'static str]) -> Vec<Step> {
    tokens.iter().map(|text| Say(text)).chain([End(FinishReason::Stop, "")]).collect()
}

/// Hidden states of a prompt: numbers that its length, its first and its last token decide.
pub fn pooled(prompt: &[u32]) -> Vec<f32> {
    let of = |token: Option<&u32>| token.map_or(0.0, |&token| token as f32);
    vec![prompt.len() as f32, of(prompt.first()), -of(prompt.last()), 0.25]
}

/// The model. Requests without a script of their own are answered with "ok".
#[derive(Debug)]
pub struct Script {
    card: Card,
    chats: bool,
    scripts: Mutex<VecDeque<Vec<Step>>>,
    refusal: Mutex<Option<EngineError>>,
    health: Mutex<Health>,
    draining: AtomicBool,
    asked: Mutex<Vec<Request>>,
    inputs: Mutex<Vec<(Input, Option<Structure>)>>,
    unstructured: Mutex<Option<GrammarError>>,
    unprepared: Mutex<Option<fn() -> PromptError>>,
    live: Arc<AtomicUsize>,
    canceled: Arc<AtomicUsize>,
}

impl Script {
    pub fn new(id: &str) -> Self {
        Self {
            card: Card {
                id: id.into(),
                created: 1_700_000_000,
                info: Info {
                    vocab: 257,
                    max_context: CONTEXT,
                    model_context: CONTEXT,
                    kv_bytes: 0,
                    max_live: 8,
                    generates: true,
                    width: WIDTH,
                },
                defaults: Sampling { temperature: 0.5, ..Sampling::default() },
                embedder: Embedder::default(),
            },
            chats: true,
            scripts: Mutex::default(),
            refusal: Mutex::default(),
            health: Mutex::new(Health { alive: true, step: None, heartbeat: 3, reason: None, resident: true }),
            draining: AtomicBool::new(false),
            asked: Mutex::default(),
            inputs: Mutex::default(),
            unstructured: Mutex::default(),
            unprepared: Mutex::default(),
            live: Arc::default(),
            canceled: Arc::default(),
        }
    }

    /// Its model has a longer context than its cache.
    pub fn bounded(mut self) -> Self {
        self.card.info.model_context = 2 * CONTEXT;
        self
    }

    /// It has no chat template.
    pub fn mute(mut self) -> Self {
        self.chats = false;
        self
    }

    /// It is an embedding model, which generates nothing.
    pub fn embeds_only(mut self) -> Self {
        self.card.info.generates = false;
        self
    }

    /// It makes embeddings in this way.
    pub fn embeds(mut self, embedder: Embedder) -> Self {
        self.card.embedder = embedder;
        self
    }

    /// The scripts of the next requests, in order.
    pub fn plays(&self, scripts: impl IntoIterator<Item = Vec<Step>>) {
        self.scripts.lock().unwrap().extend(scripts);
    }

    /// The next requests are refused.
    pub fn refuses(&self, error: EngineError) {
        *self.refusal.lock().unwrap() = Some(error);
    }

    pub fn fares(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.health.lock().unwrap());
    }

    /// Its engine has died.
    pub fn dies(&self, reason: &str) {
        self.fares(|health| (health.alive, health.reason) = (false, Some(reason.into())));
    }

    /// So many more requests than there are count as live.
    pub fn fills(&self, requests: usize) {
        self.live.fetch_add(requests, Ordering::SeqCst);
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    /// The inputs so far, and the structures of their answers.
    pub fn inputs(&self) -> Vec<(Input, Option<Structure>)> {
        self.inputs.lock().unwrap().clone()
    }

    /// The last conversation.
    pub fn conversation(&self) -> Conversation {
        match self.inputs().pop() {
            Some((Input::Conversation { conversation, .. }, _)) => conversation,
            other => panic!("no conversation: {other:?}"),
        }
    }

    /// Structures are no grammars from here on.
    pub fn compiles_nothing(&self, message: &str) {
        *self.unstructured.lock().unwrap() = Some(GrammarError::Structure { message: message.into() });
    }

    /// No input can be made ready from here on.
    pub fn prepares_nothing(&self, error: fn() -> PromptError) {
        *self.unprepared.lock().unwrap() = Some(error);
    }

    /// Requests that were dropped before their end.
    pub fn canceled(&self) -> usize {
        self.canceled.load(Ordering::SeqCst)
    }
}

impl Generate for Script {
    fn card(&self) -> &Card {
        &self.card
    }

    fn tokenizer(&self) -> &Tokenizer {
        &TOKENIZER
    }

    fn prepare(
        &self,
        input: Input,
        structure: Option<&Structure>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Prepared, PromptError> {
        if !goes_on() {
            return Err(PromptError::Text(TextError::Canceled));
        }
        self.inputs.lock().unwrap().push((input.clone(), structure.cloned()));
        if let Some(error) = *self.unprepared.lock().unwrap() {
            return Err(error());
        }
        if let Some(error) = self.unstructured.lock().unwrap().clone() {
            return Err(error.into());
        }
        let (ids, exact) = match input {
            Input::Ids(ids) => (ids, true),
            Input::Text { text, .. } => (TOKENIZER.encode(&text, false).unwrap(), false),
            Input::Conversation { .. } if !self.chats => {
                return Err(PromptError::NoTemplate { model: self.card.id.clone() });
            }
            Input::Conversation { conversation, .. } => {
                let line = |m: &mlx_serving_runtime::Message| format!("{}: {}\n", m.role.as_str(), m.content);
                let text: String = conversation.messages.iter().map(line).collect();
                (TOKENIZER.encode(&text, false).unwrap(), false)
            }
        };
        let (limit, vocab) = (self.card.info.max_context, self.card.info.vocab);
        if ids.len() > limit {
            return Err(PromptError::TooLong { tokens: ids.len(), exact, bound: self.card.info.context() });
        }
        match ids.iter().find(|&&id| id as usize >= vocab) {
            Some(&id) => Err(PromptError::UnknownToken { id, vocab }),
            None => Ok(ids.into()),
        }
    }

    fn submit(&self, requests: Vec<Request>) -> Result<Vec<Events>, EngineError> {
        if let Some(error) = self.refusal.lock().unwrap().clone() {
            return Err(error);
        }
        let (live, limit, asked) = (self.live(), self.card.info.max_live, requests.len());
        if live + asked > limit {
            return Err(EngineError::Overloaded { live, limit, asked });
        }
        requests.iter().try_for_each(|request| request.sampling.validate(self.card.info.vocab))?;
        self.asked.lock().unwrap().extend(requests.iter().cloned());
        Ok(requests.into_iter().map(|request| self.play(request)).collect())
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap().clone()
    }

    fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    fn stats(&self) -> LayerStats {
        LayerStats {
            memory_pool: Switched::off(None),
            blit_queue: Switched::off(None),
            command_buffer_ring: Switched::off(None),
            device: DeviceStats { name: self.card.id.clone(), backend: "script", instructions: None, utilization: 0.0 },
        }
    }

    fn tell_metrics(&self, to: &mut Labeled<'_>) {
        to.counter("script_requests", "Requests of a script.", self.asked.lock().unwrap().len());
    }
}

impl Script {
    fn play(&self, request: Request) -> Events {
        let usual = || match request.embed {
            Some(_) => vec![Embed, End(FinishReason::Stop, "")],
            None => says(&["ok"]),
        };
        let steps = self.scripts.lock().unwrap().pop_front().unwrap_or_else(usual);
        self.live.fetch_add(1, Ordering::SeqCst);
        let part = Part { live: self.live.clone(), canceled: self.canceled.clone(), ended: false };
        let told = request.prompt_logprobs.map(|top| prompt(&request.prompt, top));
        let mut steps: VecDeque<Step> = steps.into();
        if request.max_tokens == Some(0) {
            steps = [End(FinishReason::Length, "")].into();
        }
        let state = (steps, Writing { request, offset: 0, tokens: 0 }, part);
        let answer = stream::unfold(state, |(mut steps, mut writing, mut part)| async move {
            loop {
                match steps.pop_front()? {
                    Wait(gate) => gate.pass().await,
                    Vanish => return None,
                    step => {
                        let event = writing.event(step);
                        part.ended |= event.is_last();
                        return Some((event, (steps, writing, part)));
                    }
                }
            }
        });
        stream::iter(told.into_iter().flatten()).chain(answer).boxed()
    }
}

/// Counts a request while it is live.
struct Part {
    live: Arc<AtomicUsize>,
    canceled: Arc<AtomicUsize>,
    ended: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::SeqCst);
        self.canceled.fetch_add(usize::from(!self.ended), Ordering::SeqCst);
    }
}

fn content(text: &str) -> Vec<Segment> {
    if text.is_empty() { vec![] } else { vec![Segment::Content(text.into())] }
}

struct Writing {
    request: Request,
    offset: usize,
    tokens: usize,
}

impl Writing {
    fn event(&mut self, step: Step) -> Event {
        match step {
            Say(text) => self.token(content(text)),
            Tell(segments) => self.token(segments),
            End(reason, text) => self.end(reason, None, text),
            Stop(stop) => self.end(FinishReason::Stop, Some(stop.into()), ""),
            Embed => Event::Embedding(pooled(&self.request.prompt)),
            Fail(error) => Event::Failed(error),
            Wait(_) | Vanish => unreachable!("no event"),
        }
    }

    fn token(&mut self, segments: Vec<Segment>) -> Event {
        let text: String = segments.iter().map(Segment::as_str).collect();
        let id = text.bytes().next().map_or(END, u32::from);
        let logprobs = self.request.logprobs.map(|top| logprobs(id, top));
        let event = TokenEvent { id, segments, offset: self.offset, logprobs };
        (self.offset, self.tokens) = (self.offset + text.chars().count(), self.tokens + 1);
        Event::Token(event)
    }

    fn end(&self, reason: FinishReason, stop: Option<String>, text: &str) -> Event {
        let usage = Usage {
            prompt_tokens: self.request.prompt.len(),
            cached_tokens: 1,
            completion_tokens: self.tokens,
            ..Usage::default()
        };
        Event::Finished(Finish { reason, stop, segments: content(text), usage })
    }
}

/// The chosen token and those after it, each less likely.
fn logprobs(id: u32, top: usize) -> Logprobs {
    Logprobs { chosen: -0.5, top: (0..top as u32).map(|i| ((id + i) % END, -0.5 - i as f32)).collect() }
}

/// The prompt's tokens in two runs.
fn prompt(ids: &[u32], top: usize) -> Vec<Event> {
    let token = |(i, &id): (usize, &u32)| PromptToken { id, logprobs: (i > 0).then(|| logprobs(id, top)) };
    let mut first: Vec<PromptToken> = ids.iter().enumerate().map(token).collect();
    let second = first.split_off(1);
    vec![Event::Prompt(first), Event::Prompt(second)]
}

/// Waits until something is so.
pub async fn until(what: &str, so: impl Fn() -> bool) {
    let waited = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.unwrap_or_else(|_| panic!("nothing came: {what}"));
}
