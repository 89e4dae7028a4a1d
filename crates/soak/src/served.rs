//! The model behind the runtime's registry, as a server has it.

use crate::settings::Settings;
use crate::subject::{Answer, Facts, Footprint, Gauges, Refusal, Subject, Way};
use futures::stream::StreamExt as _;
use mlx_serving_engine::{EngineError, Event, Request};
use mlx_serving_metrics::{Families, Format};
use mlx_serving_runtime::{
    Config, Events, Generate, Input, Model, OpenOptions, Registry, Runtime, RuntimeError, Source, State, revive,
};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// Time after which a thread that loaded a model ends, so that it is not counted for long.
const LAZY: Duration = Duration::from_secs(1);
/// Counters of an engine that are recorded, as `/metrics` has them, and their names in a record.
const COUNTERS: [(&str, &str); 6] = [
    ("kv_spill_stored_blocks_total", "spilled_blocks"),
    ("kv_spill_restored_blocks_total", "restored_blocks"),
    ("kv_spill_dropped_blocks_total", "dropped_blocks"),
    ("kv_spill_damaged_blocks_total", "damaged_blocks"),
    ("vllm:num_preemptions_total", "preemptions"),
    ("vllm:prefix_cache_hits_total", "cached_prompt_tokens"),
];

/// A model that a [`Registry`] holds, loads, loses and releases.
pub struct Served {
    loader: Arc<Loader>,
    config: Config,
    settings: Settings,
    registry: Arc<Registry>,
    opening: Option<JoinHandle<Result<(), String>>>,
    /// The model that was unloaded, until it is closed.
    unloaded: Option<Arc<dyn Generate>>,
    waker: Waker,
    /// Whoever watches the registry runs here.
    _watchers: tokio::runtime::Runtime,
}

/// Opens the model with the configuration that is wanted.
struct Loader {
    id: String,
    source: Source,
    runtime: Box<dyn Fn(Config) -> Runtime + Send + Sync>,
    wanted: Mutex<Config>,
    /// The model that was opened last.
    last: Mutex<Weak<Model>>,
}

impl Served {
    /// A model under a configuration. `runtime` makes the runtime of each opening.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(
        source: Source,
        config: Config,
        settings: Settings,
        runtime: impl Fn(Config) -> Runtime + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let id = source.id();
        let watchers = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_keep_alive(LAZY)
            .enable_time()
            .build()?;
        let registry = Arc::new(Registry::new([id.clone()]));
        let loader = Arc::new(Loader {
            id,
            source,
            runtime: Box::new(runtime),
            wanted: Mutex::new(config.clone()),
            last: Mutex::default(),
        });
        let again = loader.clone();
        watchers.spawn(revive(registry.clone(), move |_: &str| again.open()));
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        Ok(Self { loader, config, settings, registry, opening: None, unloaded: None, waker, _watchers: watchers })
    }

    fn open_model(&self) -> Result<Arc<dyn Generate>, String> {
        self.registry.get(Some(&self.loader.id)).map_err(|error| error.to_string())
    }
}

impl Loader {
    fn open(&self) -> Result<Arc<dyn Generate>, RuntimeError> {
        let config = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let options = OpenOptions { name: Some(self.id.clone()), ..OpenOptions::default() };
        let model = Arc::new((self.runtime)(config).open(&self.source, options)?);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&model);
        Ok(model)
    }

    fn last(&self) -> Option<Arc<Model>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }
}

impl Subject for Served {
    fn open(&mut self, optimizations: &str, way: Way) -> Result<(), String> {
        *self.loader.wanted.lock().unwrap_or_else(PoisonError::into_inner) =
            self.settings.config(&self.config, optimizations)?;
        let id = self.loader.id.clone();
        if way == Way::Revive {
            self.registry.add_lost(&id, "it was lost on purpose".into());
            return Ok(());
        }
        if way == Way::Forget {
            self.registry.forget(&id);
        }
        let (registry, loader) = (self.registry.clone(), self.loader.clone());
        let load = move || registry.load(&id, || loader.open()).map_err(|error| error.to_string());
        let thread = std::thread::Builder::new().name("load".into()).spawn(load);
        self.opening = Some(thread.map_err(|e| format!("the thread that loads could not be started: {e}"))?);
        Ok(())
    }

    fn opened(&mut self) -> Result<bool, String> {
        if let Some(thread) = self.opening.take_if(|thread| thread.is_finished()) {
            thread.join().map_err(|_| "the thread that loads panicked".to_owned())??;
        }
        match self.registry.states().pop() {
            Some((_, State::Ready(_))) => Ok(self.opening.is_none()),
            Some((_, State::Failed(reason))) => Err(reason),
            _ => Ok(false),
        }
    }

    fn facts(&self) -> Result<Facts, String> {
        let model = self.loader.last().ok_or("no model is open")?;
        let (card, device) = (model.card(), model.engine().device().info());
        Ok(Facts {
            model: card.id.clone(),
            vocabulary: card.info.vocab,
            context: card.info.max_context,
            device: device.name.clone(),
            backend: device.backend.to_owned(),
            arithmetic: format!("{:?}", device.arithmetic).to_lowercase(),
            units: device.units,
        })
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        let input = Input::Text { text: text.to_owned(), special: false };
        self.open_model()?.prompt(input, &mut || true).map_err(|error| error.to_string())
    }

    fn ask(&mut self, request: Request) -> Result<Box<dyn Answer>, Refusal> {
        let model = self.open_model().map_err(|_| Refusal::Closed)?;
        match model.submit(vec![request]) {
            Ok(mut answers) => {
                let events = answers.pop().ok_or_else(|| Refusal::Other("no answer was made".into()))?;
                Ok(Box::new(ServedAnswer { events, waker: self.waker.clone() }))
            }
            Err(EngineError::ContextLength { .. }) => Err(Refusal::TooLong),
            Err(EngineError::Stopped(_)) if model.draining() => Err(Refusal::Closed),
            Err(error) => Err(Refusal::Other(error.to_string())),
        }
    }

    fn unload(&mut self) -> Result<(), String> {
        let model = self.registry.unload(&self.loader.id).map_err(|error| error.to_string())?;
        self.unloaded = Some(model);
        Ok(())
    }

    fn close(&mut self) -> Result<u64, String> {
        let model = self.unloaded.take().ok_or("no model was unloaded")?;
        let device = self.loader.last().ok_or("no model is open")?.engine().device().clone();
        // Joins the engine's thread.
        drop(model);
        match self.loader.last() {
            Some(_) => Err("somebody still holds the model that was unloaded".into()),
            None => Ok(device.counters().bytes_allocated),
        }
    }

    fn gauges(&self) -> Option<Gauges> {
        let model = self.loader.last()?;
        let (engine, health) = (model.engine(), model.health());
        let metrics = engine.metrics();
        let count = |gauge: i64| u64::try_from(gauge).unwrap_or(0);
        Some(Gauges {
            stats: engine.stats(),
            kv_usage: metrics.kv_usage.get(),
            running: count(metrics.running.get()),
            waiting: count(metrics.waiting.get()),
            live: engine.live() as u64,
            steps: engine.pace().steps,
            step_s: health.step.map(|step| step.as_secs_f64()),
            dead: (!health.alive).then(|| mlx_serving_runtime::death(health)),
            counters: counters(&model),
        })
    }

    fn footprint(&self) -> Footprint {
        Footprint::now()
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("model", &self.loader.id).finish_non_exhaustive()
    }
}

/// Counters that an engine tells to nobody but its metrics.
fn counters(model: &Model) -> Vec<(&'static str, u64)> {
    let mut families = Families::default();
    model.tell_metrics(&mut families.labeled(&[]));
    let text = families.write(Format::Prometheus).unwrap_or_default();
    let value = |family: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(family)?.strip_prefix(' '))?;
        rest.trim().parse().ok()
    };
    COUNTERS.iter().filter_map(|&(family, name)| Some((name, value(family)?))).collect()
}

/// The events of one request.
struct ServedAnswer {
    events: Events,
    waker: Waker,
}

impl Answer for ServedAnswer {
    fn poll(&mut self) -> Option<Event> {
        match self.events.poll_next_unpin(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }
}

/// Wakes the thread of the run.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
