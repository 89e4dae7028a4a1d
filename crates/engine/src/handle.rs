use crate::clock::Clock;
use crate::events::{Backlog, UnreadLimits};
use crate::spill::SpillOptions;
use crate::stream::Stream;
use crate::uniforms::MAX_BIASES;
use crate::worker::{self, Command, Parts};
use crate::{EngineError, Metrics, Request};
use mlx_serving_device::Device;
use mlx_serving_metal_layer::{LayerMetrics, LayerStats};
use mlx_serving_metrics::Labeled;
use mlx_serving_text::StopMatcher;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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
    /// Bytes of an answer that may lie unread before it is abandoned.
    pub unread_stream_bytes: usize,
    /// The same of all answers together: beyond it, the one of which most lies unread is abandoned.
    pub unread_bytes: usize,
    /// A step that takes longer is a failure of the device.
    pub step_limit: Duration,
    /// Storage for blocks of the prefix cache when the KV cache is full.
    pub spill: SpillOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_sequences: 32,
            max_batch_rows: 512,
            kv_tokens: 16_384,
            max_waiting: 256,
            unread_stream_bytes: 4 << 20,
            unread_bytes: 64 << 20,
            step_limit: Duration::from_secs(120),
            spill: SpillOptions::default(),
        }
    }
}

/// Bounds of what a request may ask of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// Vocabulary of the model.
    pub vocab: usize,
    /// Tokens of prompt and answer together.
    pub max_context: usize,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// Requests that run or wait, at most.
    pub max_live: usize,
}

/// Health of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Its thread runs.
    pub alive: bool,
    /// Time that a step has taken so far, not counting time in which this process was stopped; `None` while idle.
    pub step: Option<Duration>,
    /// Steps completed since the start: moves while the engine works.
    pub heartbeat: u64,
    /// Reason for its end, if it has stopped.
    pub reason: Option<String>,
    /// All weights are in the device's memory. Requests that come before are taken, and wait.
    pub resident: bool,
}

/// Submissions of an engine so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Steps.
    pub steps: u64,
    /// Host time from their plans to their submissions.
    pub encoding: Duration,
}

/// State that the engine's thread and its handle share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub metrics: Metrics,
    pub heartbeat: AtomicU64,
    /// Requests accepted and not yet ended.
    pub live: AtomicUsize,
    pub max_live: usize,
    pub backlog: Arc<Backlog>,
    /// Begin of the step in flight, milliseconds of `clock` plus one; 0 while idle.
    pub step_since: AtomicU64,
    pub clock: Clock,
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
        self.step_since.store(self.clock.now().as_millis() as u64 + 1, Ordering::Relaxed);
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
    /// Reason for the engine's end.
    pub(crate) fn reason(&self) -> Option<String> {
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
        let no_thread = |e| EngineError::Stopped(format!("its thread could not be started: {e}"));
        let clock = Clock::start().map_err(no_thread)?;
        let shared = Arc::new(Shared {
            metrics: Metrics::new(parts.model.max_context()),
            heartbeat: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            max_live: options.max_sequences + options.max_waiting,
            backlog: Backlog::new(UnreadLimits { stream: options.unread_stream_bytes, all: options.unread_bytes }),
            step_since: AtomicU64::new(0),
            clock,
            stats: Mutex::new(parts.layer.stats()),
            pace: Mutex::default(),
            layer_metrics: parts.layer.metrics().cloned(),
            stopped: Mutex::new(None),
            resident: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        });
        let device = parts.device.clone();
        let (info, worker) = worker::Worker::new(parts, options, inbox, shared.clone())?;
        let thread =
            std::thread::Builder::new().name("engine".into()).spawn(move || worker.run()).map_err(no_thread)?;
        Ok(Engine { commands, shared, info, device, thread: Some(thread) })
    }

    /// Queues a request. Refuses what can never be served, and what exceeds the queue.
    pub fn submit(&self, request: Request) -> Result<Stream, EngineError> {
        Ok(self.submit_all(vec![request])?.swap_remove(0))
    }

    /// Queues several requests: all of them, in this order, or none.
    pub fn submit_all(&self, requests: Vec<Request>) -> Result<Vec<Stream>, EngineError> {
        let stops = requests.iter().map(|request| self.check(request)).collect::<Result<Vec<_>, _>>()?;
        let places = self.reserve(requests.len())?;
        requests
            .into_iter()
            .zip(stops)
            .zip(places)
            .map(|((request, stops), live)| self.queue(request, stops, live))
            .collect()
    }

    /// Places for as many live requests, if there are so many.
    fn reserve(&self, asked: usize) -> Result<Vec<Live>, EngineError> {
        let limit = self.shared.max_live;
        if asked > limit {
            let message = format!(
                "{asked} answers are asked for at once; no more than {limit} requests can run and wait here (engine.max_sequences \
                 and engine.max_waiting)"
            );
            return Err(EngineError::invalid("n", message));
        }
        if let Some(reason) = self.shared.reason() {
            return Err(EngineError::Stopped(reason));
        }
        let with_these = |live: usize| live.checked_add(asked).filter(|&live| live <= limit);
        self.shared
            .live
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, with_these)
            .map_err(|live| EngineError::Overloaded { live, limit, asked })?;
        let places = (0..asked).map(|_| Live(self.shared.clone())).collect();
        // Whoever drains sees these requests as live, or they see that it drains.
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(EngineError::Stopped("it is draining".into()));
        }
        Ok(places)
    }

    /// Sends a checked request to the engine's thread.
    fn queue(&self, request: Request, stops: StopMatcher, live: Live) -> Result<Stream, EngineError> {
        let (events, receiver) = self.shared.backlog.open();
        self.commands
            .send(Command::Submit { request: Box::new(request), stops, events, live, arrived: Instant::now() })
            .map_err(|_| EngineError::Stopped(self.shared.reason().unwrap_or_else(|| "its thread has ended".into())))?;
        Ok(Stream::new(receiver, self.shared.clone()))
    }

    fn check(&self, request: &Request) -> Result<StopMatcher, EngineError> {
        let (n, context) = (request.prompt.len(), self.info.max_context);
        if n == 0 {
            return Err(EngineError::invalid("prompt", "the prompt has no tokens; send at least one"));
        }
        let only_scored = request.max_tokens == Some(0) && request.prompt_logprobs.is_some();
        if n + usize::from(!only_scored) > context {
            let message =
                format!("the prompt has {n} tokens; this model's context holds {context}, the answer included");
            return Err(EngineError::invalid("prompt", message));
        }
        if let Some(max) = request.max_tokens {
            if max == 0 && !only_scored {
                let message =
                    "max_tokens is 0; it must be at least 1, unless only the prompt's log-probabilities are asked for";
                return Err(EngineError::invalid("max_tokens", message));
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
        for (param, asked) in [("top_logprobs", request.logprobs), ("prompt_logprobs", request.prompt_logprobs)] {
            if asked.is_some_and(|n| n > 20) {
                return Err(EngineError::invalid(param, "at most 20 alternatives can be reported"));
            }
        }
        request.sampling.validate(self.info.vocab)?;
        if request.sampling.logit_bias.len() > MAX_BIASES {
            return Err(EngineError::invalid("logit_bias", format!("at most {MAX_BIASES} biases can be given")));
        }
        StopMatcher::new(&request.stop).map_err(|e| EngineError::invalid("stop", e.to_string()))
    }

    /// Bounds of what requests may ask.
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

    /// Adds all metrics as they are now, the optimizations' too unless the configuration hides them.
    pub fn tell_metrics(&self, to: &mut Labeled<'_>) {
        self.shared.metrics.tell(to);
        if let Some(metrics) = &self.shared.layer_metrics {
            metrics.tell(&self.stats(), to);
        }
    }

    /// The three optimizations' statistics, as of the last step.
    pub fn stats(&self) -> LayerStats {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Steps submitted so far, and the host's time for them.
    pub fn pace(&self) -> Pace {
        *self.shared.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its health.
    pub fn health(&self) -> Health {
        let since = self.shared.step_since.load(Ordering::Relaxed);
        let now = self.shared.clock.now().as_millis() as u64 + 1;
        Health {
            alive: self.thread.as_ref().is_some_and(|t| !t.is_finished()) && self.shared.reason().is_none(),
            step: (since > 0).then(|| Duration::from_millis(now.saturating_sub(since))),
            heartbeat: self.shared.heartbeat.load(Ordering::Relaxed),
            reason: self.shared.reason(),
            resident: self.shared.resident.load(Ordering::Acquire),
        }
    }

    /// Bytes of answers that nobody has read yet, roughly.
    pub fn unread_bytes(&self) -> usize {
        self.shared.backlog.unread()
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
