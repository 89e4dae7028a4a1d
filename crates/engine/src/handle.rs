use crate::spill::SpillOptions;
use crate::uniforms::MAX_BIASES;
use crate::worker::{self, Command, Parts};
use crate::{EngineError, Event, Metrics, Request};
use mlx_serving_device::Device;
use mlx_serving_metal_layer::{LayerMetrics, LayerStats};
use mlx_serving_text::StopMatcher;
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;

/// Bounds of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Sequences that run at once.
    pub max_sequences: usize,
    /// Rows of one step: decoding sequences plus chunks of prompts.
    pub max_batch_rows: usize,
    /// Tokens that the KV cache holds, rounded up to whole blocks.
    pub kv_tokens: usize,
    /// Requests that may wait before more are refused.
    pub max_waiting: usize,
    /// A step that takes longer is a failure of the device.
    pub step_limit: Duration,
    /// Where blocks of the prefix cache go when the KV cache is full.
    pub spill: SpillOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_sequences: 32,
            max_batch_rows: 512,
            kv_tokens: 16_384,
            max_waiting: 256,
            step_limit: Duration::from_secs(120),
            spill: SpillOptions::default(),
        }
    }
}

/// What a request may ask of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// Vocabulary of the model.
    pub vocab: usize,
    /// Tokens of prompt and answer together.
    pub max_context: usize,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
}

/// Whether the engine lives.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Its thread runs.
    pub alive: bool,
    /// How long a step has been going on; `None` while idle.
    pub step: Option<Duration>,
    /// Steps completed since the start: moves while the engine works.
    pub heartbeat: u64,
    /// Why it stopped, if it did.
    pub reason: Option<String>,
    /// All weights are in the device's memory. Requests that come before are taken, and wait.
    pub resident: bool,
}

/// What an engine has submitted so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Steps.
    pub steps: u64,
    /// Host time from their plans to their submissions.
    pub encoding: Duration,
}

/// What the engine's thread and its handle both see.
#[derive(Debug)]
pub(crate) struct Shared {
    pub metrics: Metrics,
    pub heartbeat: AtomicU64,
    /// Requests accepted and not yet ended.
    pub live: AtomicUsize,
    pub max_live: usize,
    /// When the step now going on began, milliseconds after `epoch` plus one; 0 while idle.
    pub step_since: AtomicU64,
    pub epoch: Instant,
    pub stats: Mutex<LayerStats>,
    pub pace: Mutex<Pace>,
    /// `None` if the configuration hides them.
    pub layer_metrics: Option<LayerMetrics>,
    pub stopped: Mutex<Option<String>>,
    pub resident: AtomicBool,
    pub draining: AtomicBool,
}

impl Shared {
    pub(crate) fn begin_step(&self) {
        self.step_since.store(self.epoch.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
    }
    /// A step has ended; if `more` are in flight, the next one's time begins.
    pub(crate) fn end_step(&self, more: bool) {
        self.heartbeat.fetch_add(1, Ordering::Relaxed);
        if more {
            self.begin_step();
        } else {
            self.step_since.store(0, Ordering::Relaxed);
        }
    }
    pub(crate) fn note_submitted(&self, encoding: Duration) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.steps += 1;
        pace.encoding += encoding;
    }
    fn reason(&self) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running engine. Dropping it ends the thread after the steps in flight; live requests fail with [`EngineError::Stopped`].
#[derive(Debug)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    info: Info,
    device: Arc<dyn Device>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Allocates the KV cache and the scratch memory, and starts the thread.
    pub fn start(parts: Parts, options: &Options) -> Result<Engine, EngineError> {
        let (commands, inbox) = mpsc::channel();
        let shared = Arc::new(Shared {
            metrics: Metrics::default(),
            heartbeat: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            max_live: options.max_sequences + options.max_waiting,
            step_since: AtomicU64::new(0),
            epoch: Instant::now(),
            stats: Mutex::new(parts.layer.stats()),
            pace: Mutex::default(),
            layer_metrics: parts.layer.metrics().cloned(),
            stopped: Mutex::new(None),
            resident: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        });
        let device = parts.device.clone();
        let (info, worker) = worker::Worker::new(parts, options, inbox, shared.clone())?;
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || worker.run())
            .map_err(|e| EngineError::Stopped(format!("its thread could not be started: {e}")))?;
        Ok(Engine { commands, shared, info, device, thread: Some(thread) })
    }

    /// Queues a request. Refuses what can never be served, and what exceeds the queue.
    pub fn submit(&self, request: Request) -> Result<Stream, EngineError> {
        let stops = self.check(&request)?;
        if let Some(reason) = self.shared.reason() {
            return Err(EngineError::Stopped(reason));
        }
        let live = self.shared.live.fetch_add(1, Ordering::AcqRel);
        let guard = Live(self.shared.clone());
        if live >= self.shared.max_live {
            return Err(EngineError::Overloaded { waiting: live });
        }
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(EngineError::Stopped("it is draining".into()));
        }
        let (events, receiver) = tokio::sync::mpsc::unbounded_channel();
        self.commands
            .send(Command::Submit { request: Box::new(request), stops, events, live: guard, arrived: Instant::now() })
            .map_err(|_| EngineError::Stopped(self.shared.reason().unwrap_or_else(|| "its thread has ended".into())))?;
        Ok(Stream { receiver, ended: false, shared: self.shared.clone() })
    }

    /// Queues the requests of one HTTP request: all of them, or none.
    pub fn submit_all(&self, requests: Vec<Request>) -> Result<Vec<Stream>, EngineError> {
        requests.into_iter().map(|request| self.submit(request)).collect()
    }

    fn check(&self, request: &Request) -> Result<StopMatcher, EngineError> {
        let (n, context) = (request.prompt.len(), self.info.max_context);
        if n == 0 {
            return Err(EngineError::invalid("prompt", "the prompt has no tokens; send at least one"));
        }
        if n >= context {
            let message =
                format!("the prompt has {n} tokens; this model's context holds {context}, the answer included");
            return Err(EngineError::invalid("prompt", message));
        }
        if let Some(max) = request.max_tokens {
            if max == 0 {
                return Err(EngineError::invalid("max_tokens", "max_tokens is 0; it must be at least 1"));
            }
            if max > context - n {
                let message = format!(
                    "max_tokens is {max}, but after a prompt of {n} tokens the context of {context} has room for {}",
                    context - n
                );
                return Err(EngineError::invalid("max_tokens", message));
            }
        }
        if let Some(&token) = request.prompt.iter().find(|&&t| t as usize >= self.info.vocab) {
            let message = format!("token {token} is outside the vocabulary of {}", self.info.vocab);
            return Err(EngineError::invalid("prompt", message));
        }
        if request.logprobs.is_some_and(|n| n > 20) {
            return Err(EngineError::invalid("top_logprobs", "at most 20 alternatives can be reported"));
        }
        request.sampling.validate(self.info.vocab)?;
        if request.sampling.logit_bias.len() > MAX_BIASES {
            return Err(EngineError::invalid("logit_bias", format!("at most {MAX_BIASES} biases can be given")));
        }
        StopMatcher::new(&request.stop).map_err(|e| EngineError::invalid("stop", e.to_string()))
    }

    /// What requests may ask.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The device that computes.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Counters and histograms.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Registers all metrics as they are now, the optimisations' too unless the configuration hides them.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
        if let Some(metrics) = &self.shared.layer_metrics {
            metrics.register(self.stats(), registry);
        }
    }

    /// The three optimisations' statistics, as of the last step.
    pub fn stats(&self) -> LayerStats {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Steps submitted so far, and the host's time for them.
    pub fn pace(&self) -> Pace {
        *self.shared.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it lives.
    pub fn health(&self) -> Health {
        let since = self.shared.step_since.load(Ordering::Relaxed);
        let now = self.shared.epoch.elapsed().as_millis() as u64 + 1;
        Health {
            alive: self.thread.as_ref().is_some_and(|t| !t.is_finished()) && self.shared.reason().is_none(),
            step: (since > 0).then(|| Duration::from_millis(now.saturating_sub(since))),
            heartbeat: self.shared.heartbeat.load(Ordering::Relaxed),
            reason: self.shared.reason(),
            resident: self.shared.resident.load(Ordering::Acquire),
        }
    }

    /// Requests accepted and not yet ended.
    pub fn live(&self) -> usize {
        self.shared.live.load(Ordering::Acquire)
    }

    /// It refuses new requests.
    pub fn draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// Refuses new requests from now on; those accepted go on.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A send fails only if the thread has ended already, which is what is wanted.
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Counts a request as live until it is dropped.
#[derive(Debug)]
pub(crate) struct Live(Arc<Shared>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The events of one request. Dropping it cancels the request.
#[derive(Debug)]
pub struct Stream {
    receiver: UnboundedReceiver<Event>,
    /// The last event has come.
    ended: bool,
    shared: Arc<Shared>,
}

impl Stream {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.receiver.recv().await;
        self.follow(event)
    }

    /// The next event, blocking the thread; `None` after the last. Not for asynchronous callers.
    pub fn next_blocking(&mut self) -> Option<Event> {
        let event = self.receiver.blocking_recv();
        self.follow(event)
    }

    /// The next event if it comes within `limit`, `Err` otherwise. Blocks the thread; not for asynchronous callers.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Event>, Late> {
        let deadline = Instant::now() + limit;
        loop {
            match self.receiver.try_recv() {
                Ok(event) => return Ok(self.follow(Some(event))),
                Err(TryRecvError::Disconnected) => return Ok(self.follow(None)),
                Err(TryRecvError::Empty) if Instant::now() >= deadline => return Err(Late),
                Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Adds the last event where the engine ended without sending one.
    fn follow(&mut self, event: Option<Event>) -> Option<Event> {
        match event {
            Some(event) => {
                self.ended = !matches!(event, Event::Prompt(_) | Event::Token(_));
                Some(event)
            }
            None if self.ended => None,
            None => {
                self.ended = true;
                let reason = self.shared.reason().unwrap_or_else(|| "its thread has ended".into());
                Some(Event::Failed(EngineError::Stopped(reason)))
            }
        }
    }
}

/// No event came in time; the request goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late;
