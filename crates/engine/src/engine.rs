use crate::error::EngineError;
use crate::events::{Backlog, UnreadLimits};
use crate::masks::rules::Rules;
use crate::metrics::Metrics;
use crate::options::{Info, Options, Parts};
use crate::request::Request;
use crate::request::{MAX_ALTERNATIVES, MAX_BIASES};
use crate::shared::{Arrival, Command, EngineStatus, Health, Live, Pace};
use crate::stream::Stream;
use crate::worker::Worker;
use mlx_serving_device::Device;
use mlx_serving_metal_layer::{Interval, LayerStats};
use mlx_serving_metrics::Labeled;
use mlx_serving_text::StopMatcher;
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::thread::JoinHandle;
use std::time::Instant;

/// A running engine. Dropping it ends the thread after the steps in flight; live requests fail with [`EngineError::Stopped`].
#[derive(Debug)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    status: Arc<EngineStatus>,
    info: Info,
    device: Arc<dyn Device>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Allocates the KV cache and the scratch memory, and starts the thread.
    pub fn start(parts: Parts, options: &Options) -> Result<Engine, EngineError> {
        let (commands, inbox) = mpsc::channel();
        let no_thread = |e| EngineError::Stopped(format!("its thread could not be started: {e}"));
        let limits = UnreadLimits { stream: options.unread_stream_bytes, all: options.unread_bytes };
        let metrics = Metrics::new(parts.model.max_context());
        let max_live = options.max_sequences + options.max_waiting;
        let backlog = Backlog::new(limits, Waker::from(Arc::new(Look(commands.clone()))));
        let status = EngineStatus::new(metrics, backlog, max_live, &parts.layer);
        let status = Arc::new(status.map_err(no_thread)?);
        let device = parts.device.clone();
        // The thread owns all that it works with from the first: its blocks are counted without locks.
        let (report, started) = mpsc::sync_channel(1);
        let (own, options) = (status.clone(), options.clone());
        let work = move || match Worker::new(parts, &options, inbox, own) {
            Ok((info, worker)) => {
                // Whoever waits for it is there until it has come.
                let _ = report.send(Ok(info));
                worker.run();
            }
            Err(error) => {
                let _ = report.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(work).map_err(no_thread)?;
        match started.recv() {
            Ok(Ok(info)) => Ok(Engine { commands, status, info, device, thread: Some(thread) }),
            failed => {
                let _ = thread.join();
                Err(match failed {
                    Ok(Err(error)) => error,
                    _ => EngineError::Stopped("its thread has ended".into()),
                })
            }
        }
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
        let limit = self.status.max_live;
        if asked > limit {
            let message = format!(
                "{asked} answers are asked for at once; no more than {limit} requests can run and wait here (engine.max_sequences \
                 and engine.max_waiting)"
            );
            return Err(EngineError::invalid("n", message));
        }
        if let Some(reason) = self.status.reason() {
            return Err(EngineError::Stopped(reason));
        }
        self.status.reserve(asked)
    }

    /// Sends a checked request to the engine's thread.
    fn queue(&self, mut request: Request, stops: StopMatcher, live: Live) -> Result<Stream, EngineError> {
        let rules = request.grammar.take().map(|grammar| Arc::new(grammar) as Arc<dyn Rules>);
        self.queue_under(rules, request, stops, live)
    }

    fn queue_under(
        &self,
        rules: Option<Arc<dyn Rules>>,
        request: Request,
        stops: StopMatcher,
        live: Live,
    ) -> Result<Stream, EngineError> {
        let (events, receiver) = self.status.backlog.open();
        let arrival = Arrival { request, rules, stops, events, live, at: Instant::now() };
        self.commands
            .send(Command::Submit(Box::new(arrival)))
            .map_err(|_| EngineError::Stopped(self.status.reason().unwrap_or_else(|| "its thread has ended".into())))?;
        Ok(Stream::new(receiver, self.status.clone()))
    }

    fn check(&self, request: &Request) -> Result<StopMatcher, EngineError> {
        let (n, context) = (request.prompt.len(), self.info.max_context);
        if n == 0 {
            return Err(EngineError::invalid("prompt", "the prompt has no tokens; send at least one"));
        }
        let embeds = request.embed.is_some();
        if !embeds && !self.info.generates {
            return Err(EngineError::invalid("model", "this model makes embeddings and generates nothing"));
        }
        if embeds && request.prompt_logprobs.is_some() {
            let message = "log-probabilities of a prompt and its embedding cannot be asked for together";
            return Err(EngineError::invalid("prompt_logprobs", message));
        }
        let only_scored = request.max_tokens == Some(0) && request.prompt_logprobs.is_some();
        if n + usize::from(!only_scored && !embeds) > context {
            let message = format!("the prompt has {n} tokens; {}", self.info.context());
            return Err(EngineError::ContextLength { param: "prompt", message });
        }
        if let Some(max) = request.max_tokens.filter(|_| !embeds) {
            if max == 0 && !only_scored {
                let message =
                    "max_tokens is 0; it must be at least 1, unless only the prompt's log-probabilities are asked for";
                return Err(EngineError::invalid("max_tokens", message));
            }
            if max > context - n {
                let message = format!(
                    "max_tokens is {max}, but after a prompt of {n} tokens there is room for {}; {}",
                    context - n,
                    self.info.context()
                );
                return Err(EngineError::ContextLength { param: "max_tokens", message });
            }
        }
        if let Some(&token) = request.prompt.iter().find(|&&t| t as usize >= self.info.vocab) {
            let message = format!("token {token} is outside the vocabulary of {}", self.info.vocab);
            return Err(EngineError::invalid("prompt", message));
        }
        for (param, asked) in [("top_logprobs", request.logprobs), ("prompt_logprobs", request.prompt_logprobs)] {
            if asked.is_some_and(|n| n > MAX_ALTERNATIVES) {
                let message = format!("at most {MAX_ALTERNATIVES} alternatives can be reported");
                return Err(EngineError::invalid(param, message));
            }
        }
        if request.read_ahead == Some(0) {
            let message =
                "read_ahead is 0; at least 1 token must be allowed to lie unread, or nothing would ever be computed";
            return Err(EngineError::invalid("read_ahead", message));
        }
        request.sampling.validate(self.info.vocab)?;
        if request.sampling.logit_bias.len() > MAX_BIASES {
            return Err(EngineError::invalid("logit_bias", format!("at most {MAX_BIASES} biases can be given")));
        }
        StopMatcher::new(&request.stop).map_err(|e| EngineError::invalid("stop", e.to_string()))
    }

    /// Queues a request under rules that no grammar has.
    #[cfg(test)]
    pub(crate) fn submit_under(&self, rules: Arc<dyn Rules>, request: Request) -> Result<Stream, EngineError> {
        let (stops, live) = (self.check(&request)?, self.reserve(1)?.swap_remove(0));
        self.queue_under(Some(rules), request, stops, live)
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
        &self.status.metrics
    }

    /// Adds all metrics as they are now, the optimizations' too unless the configuration hides them.
    pub fn tell_metrics(&self, to: &mut Labeled<'_>) {
        self.status.metrics.tell(to);
        if let Some(metrics) = &self.status.layer_metrics {
            metrics.tell(&self.stats(), to);
        }
    }

    /// The three optimizations' statistics, as of the last step.
    pub fn stats(&self) -> LayerStats {
        self.status.stats()
    }

    /// Times of its last steps and copies on the device, a bounded number of them.
    pub fn intervals(&self) -> Vec<Interval> {
        self.status.intervals.all()
    }

    /// Steps submitted so far, and the host's time for them.
    pub fn pace(&self) -> Pace {
        self.status.pace()
    }

    /// Its health.
    pub fn health(&self) -> Health {
        self.status.health(self.thread.as_ref().is_some_and(|t| !t.is_finished()))
    }

    /// Bytes of answers that nobody has read yet, roughly.
    pub fn unread_bytes(&self) -> usize {
        self.status.backlog.unread()
    }

    /// Requests accepted and not yet ended.
    pub fn live(&self) -> usize {
        self.status.live()
    }

    /// True if it refuses new requests.
    pub fn draining(&self) -> bool {
        self.status.draining()
    }

    /// Refuses new requests from now on; those accepted go on.
    pub fn drain(&self) {
        self.status.drain();
    }
}

/// Wakes the engine's thread.
struct Look(mpsc::Sender<Command>);

impl Wake for Look {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A thread that has ended has nothing to look at.
        let _ = self.0.send(Command::Look);
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
