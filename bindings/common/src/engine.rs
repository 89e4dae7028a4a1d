//! The engine of a process: models by name, and answers of them.

use crate::args::Args;
use crate::ask::{Ask, ids};
use crate::error::{Code, Error};
use crate::fork::Own;
use crate::generation::{Generation, Reader, Stage};
use crate::log;
use crate::prompts::{Prompts, SHORT};
use futures::channel::oneshot;
use mlx_serving_metrics::{Families, Format};
use mlx_serving_runtime::{
    Config, Events, Generate, OnProgress, OpenOptions, Registry, RegistryError, Runtime, Source, State, Unavailable,
    death,
};
use serde_json::{Value, json};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two looks at a model that another call loads.
const LOOK: Duration = Duration::from_millis(10);
/// Longest wait for whoever still uses a model that is released: encoding a prompt takes less.
const RELEASE: Duration = Duration::from_secs(60);

/// Models by name in this process. Clones are handles of one engine; all methods may be called from any thread.
#[derive(Clone)]
pub struct Engine(Arc<Own<Shared>>);

struct Shared {
    runtime: Runtime,
    registry: Registry,
    prompts: Prompts,
    disposed: Arc<AtomicBool>,
    /// Message of a panic, if there was one.
    panicked: Mutex<Option<String>>,
}

impl Engine {
    /// An engine without models. `options` are nested objects with the keys of `runtime.yaml`; null, and what is left out, stand for the
    /// defaults.
    ///
    /// # Errors
    /// The first option that is not taken.
    pub fn new(options: &Value) -> Result<Self, Error> {
        let config = Config::from_value(options)?;
        log::start(&config.telemetry, options["telemetry"]["log_level"].is_string());
        let for_servers = ["server", "models"].into_iter().filter(|section| !options[*section].is_null());
        let unused =
            for_servers.map(|section| format!("`{section}` is for `mlx-serving serve`, and has no effect in process"));
        for warning in config.warnings(None).into_iter().chain(unused) {
            tracing::warn!("{warning}");
        }
        Ok(Self(Arc::new(Own::new(Shared {
            runtime: Runtime::new(config),
            registry: Registry::default(),
            prompts: Prompts::default(),
            disposed: Arc::default(),
            panicked: Mutex::default(),
        }))))
    }

    /// Loads a model and returns its entry of [`Self::list_models`]. Arguments: `model`, a folder or a hub's id, the bundled model if it is
    /// left out; `name`, under which it answers too; `chat_template`, a Jinja file in the place of its own. One that is loaded already is left
    /// as it is. Blocks for as long as it takes.
    ///
    /// # Errors
    /// There is no such model; it cannot be loaded; another has its name.
    pub fn load_model(&self, args: &Value, progress: Option<OnProgress<'_>>) -> Result<Value, Error> {
        let mut args = Args::of(args)?;
        let (given, name) = (args.text("model")?, args.text("name")?.map(str::to_owned));
        let chat_template: Option<PathBuf> = args.text("chat_template")?.map(Into::into);
        args.finish()?;
        if name.as_deref().is_some_and(str::is_empty) {
            return Err(Error::value("name", "`name` is empty; give text, or leave it out"));
        }
        let shared = self.open()?;
        let source = Source::from(given);
        let id = name.clone().unwrap_or_else(|| source.id());
        let asked = if name.is_some() { &id } else { given.unwrap_or(&id) };
        let mut progress = progress;
        loop {
            shared.await_loading(asked);
            if name.is_none()
                && let Ok(loaded) = shared.registry.get(Some(asked))
            {
                return Ok(card(loaded.as_ref()));
            }
            let open = || {
                let (name, progress, chat_template) = (Some(id.clone()), progress.take(), chat_template.clone());
                let options = OpenOptions { name, progress, chat_template, ..OpenOptions::default() };
                Ok(Arc::new(shared.runtime.open(&source, options)?) as Arc<dyn Generate>)
            };
            match shared.registry.load(&id, open) {
                Ok(()) => break,
                // Another call was quicker.
                Err(RegistryError::Unavailable(Unavailable::Loading { .. })) => {}
                // Its slot is not this call's.
                Err(error @ (RegistryError::Loaded { .. } | RegistryError::Unavailable(_))) => return Err(error.into()),
                Err(error) => {
                    shared.registry.forget(&id);
                    return Err(error.into());
                }
            }
        }
        match shared.registry.get(Some(&id)) {
            Ok(model) => {
                if let Some(given) = given.filter(|given| *given != id) {
                    shared.registry.alias(&id, given.to_owned());
                }
                Ok(card(model.as_ref()))
            }
            // Weights that are being written to leave a model that is to be loaded again, which is the caller's to do here.
            Err(why) => {
                shared.registry.forget(&id);
                Err(Error::new(Code::LoadError, why.to_string()))
            }
        }
    }

    /// Releases a model; its answers in flight fail. Argument: `model`, the only one if it is left out. Ends when its memory is free.
    ///
    /// # Errors
    /// It is not loaded.
    pub fn unload_model(&self, args: &Value) -> Result<(), Error> {
        let mut args = Args::of(args)?;
        let name = args.text("model")?;
        args.finish()?;
        let registry = &self.open()?.registry;
        let id = registry.get(name)?.card().id.clone();
        let model = registry.unload(&id)?;
        registry.forget(&id);
        release(model);
        Ok(())
    }

    /// Every model with its state.
    ///
    /// # Errors
    /// The engine was disposed of.
    pub fn list_models(&self) -> Result<Value, Error> {
        Ok(self.open()?.models())
    }

    /// Health: `status` is `healthy` or `unhealthy`, then with a `reason`; `models` are those of [`Self::list_models`].
    pub fn health(&self) -> Value {
        let shared = match self.open() {
            Ok(shared) => shared,
            Err(error) => return json!({ "status": "unhealthy", "reason": error.message, "models": [] }),
        };
        match shared.ailment() {
            None => json!({ "status": "healthy", "models": shared.models() }),
            Some(reason) => json!({ "status": "unhealthy", "reason": reason, "models": shared.models() }),
        }
    }

    /// Statistics of a model's three optimizations. Argument: `model`, the only one if it is left out.
    ///
    /// # Errors
    /// It is not loaded.
    pub fn metal_stats(&self, args: &Value) -> Result<Value, Error> {
        let mut args = Args::of(args)?;
        let name = args.text("model")?;
        args.finish()?;
        let stats = self.open()?.registry.get(name)?.stats();
        serde_json::to_value(stats).map_err(|error| Error::new(Code::Internal, error.to_string()))
    }

    /// Metrics of all models, as Prometheus reads them.
    ///
    /// # Errors
    /// The engine was disposed of.
    pub fn metrics(&self) -> Result<String, Error> {
        let mut families = Families::default();
        for model in self.open()?.registry.models() {
            model.tell_metrics(&mut families.labeled(&[("model_name", &model.card().id)]));
        }
        families.write(Format::Prometheus).map_err(|error| Error::new(Code::Internal, error.to_string()))
    }

    /// Token ids of a text. Arguments: `text`; `model`; `add_special_tokens`, true if it is left out.
    ///
    /// # Errors
    /// The text cannot be encoded.
    pub fn tokenize(&self, args: &Value) -> Result<Vec<u32>, Error> {
        let mut args = Args::of(args)?;
        let (text, name) = (args.text("text")?, args.text("model")?);
        let special = args.flag("add_special_tokens")?.unwrap_or(true);
        args.finish()?;
        let text = text.ok_or_else(|| Error::value("text", "`text` is missing"))?;
        let model = self.open()?.registry.get(name)?;
        model.tokenizer().encode(text, special).map_err(|error| Error::value("text", error.to_string()))
    }

    /// The text of token ids. Arguments: `tokens`; `model`.
    ///
    /// # Errors
    /// An id that the model does not have.
    pub fn detokenize(&self, args: &Value) -> Result<String, Error> {
        let mut args = Args::of(args)?;
        let (tokens, name) = (args.take("tokens"), args.text("model")?);
        args.finish()?;
        let tokens = ids("tokens", tokens.ok_or_else(|| Error::value("tokens", "`tokens` is missing"))?)?;
        let model = self.open()?.registry.get(name)?;
        let vocab = model.card().info.vocab;
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            let message = format!("`tokens` has {id}, which is outside the vocabulary of {vocab}");
            return Err(Error::value("tokens", message));
        }
        model.tokenizer().decode(&tokens, false).map_err(|error| Error::value("tokens", error.to_string()))
    }

    /// Begins an answer. Every argument is checked before; the README of each language lists them. A long prompt that an event loop asks for is
    /// encoded on another thread, and what is wrong with it is found when the answer is read.
    ///
    /// # Errors
    /// An argument is not taken, the model is not loaded, or the engine takes no more requests.
    pub fn start(&self, args: &Value, reader: Reader) -> Result<Generation, Error> {
        let ask = Ask::parse(args)?;
        let shared = self.open()?;
        let model = shared.registry.get(ask.model.as_deref())?;
        let timeout = ask.timeout;
        let stage = match reader {
            Reader::Mailbox(_) if ask.bytes() > SHORT => {
                let (sender, encoding) = oneshot::channel();
                let job = move || {
                    let events = submit(model.as_ref(), ask, &mut || !sender.is_canceled());
                    // Nobody wants it any more.
                    let _ = sender.send(events);
                };
                let unstarted = |error| Error::new(Code::Internal, format!("no thread for long prompts: {error}"));
                shared.prompts.run(job).map_err(unstarted)?;
                Stage::Encoding(encoding)
            }
            _ => Stage::Open(submit(model.as_ref(), ask, &mut || true)?),
        };
        Ok(Generation::new(stage, reader, timeout, shared.disposed.clone()))
    }

    /// Checks the arguments of [`Self::start`], as far as they can be without the model.
    ///
    /// # Errors
    /// An argument that is not taken.
    pub fn check(&self, args: &Value) -> Result<(), Error> {
        Ask::parse(args).map(drop)
    }

    /// Refuses every later call, at once. [`Self::dispose`] releases what there is.
    pub fn close(&self) {
        if let Ok(shared) = self.0.get() {
            shared.disposed.store(true, Ordering::Release);
        }
    }

    /// Releases all models; answers in flight fail with [`Code::Disposed`], and so does every later call. Ends when their memory is free.
    pub fn dispose(&self) {
        self.close();
        let Ok(shared) = self.0.get() else { return };
        let models = shared.registry.models();
        shared.registry.close();
        shared.prompts.end();
        models.into_iter().for_each(release);
    }

    /// Runs a call of another language. A panic becomes an error of [`Code::Internal`], and makes the engine unhealthy.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn guard<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let message = panic_message(panic.as_ref());
            if let Ok(shared) = self.0.get() {
                *shared.panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.clone());
            }
            Err(Error::new(Code::Internal, message))
        })
    }

    fn open(&self) -> Result<&Shared, Error> {
        let shared = self.0.get()?;
        if shared.disposed.load(Ordering::Acquire) { Err(Error::disposed()) } else { Ok(shared) }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({})", self.health())
    }
}

impl Shared {
    /// Waits while another call loads the model of that name.
    fn await_loading(&self, name: &str) {
        while matches!(self.registry.get(Some(name)), Err(Unavailable::Loading { .. })) {
            std::thread::sleep(LOOK);
        }
    }

    fn models(&self) -> Value {
        self.registry.states().into_iter().map(|(id, state)| entry(&id, &state)).collect()
    }

    /// Reason for which the engine is unhealthy, if it is.
    fn ailment(&self) -> Option<String> {
        let panicked = self.panicked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        panicked.or_else(|| {
            let dead = self.registry.models().into_iter().find(|model| !model.health().alive)?;
            Some(format!("the engine of {} stopped: {}", dead.card().id, death(dead.health())))
        })
    }
}

/// Sentence for a panic that was caught.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic");
    format!("a fault of mlx-serving itself: {said}; please report it")
}

/// Encodes the prompt and queues the request.
fn submit(model: &dyn Generate, ask: Ask, goes_on: &mut dyn FnMut() -> bool) -> Result<Events, Error> {
    let prompt = model.prompt(ask.input, goes_on)?;
    let request = ask.terms.request(model.card(), prompt);
    let events = model.submit(vec![request])?.pop();
    events.ok_or_else(|| Error::new(Code::Internal, "the engine took the request and gave no answer"))
}

/// Drops the last reference to a model here, so that its memory is free when this returns.
fn release(mut model: Arc<dyn Generate>) {
    let end = Instant::now() + RELEASE;
    while Arc::get_mut(&mut model).is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A model's entry in the list of models.
fn entry(id: &str, state: &State) -> Value {
    match state {
        State::Ready(model) => card(model.as_ref()),
        State::Loading => json!({ "id": id, "state": "loading" }),
        State::Reloading(reason) => json!({ "id": id, "state": "reloading", "reason": reason }),
        State::Unloaded(_) => json!({ "id": id, "state": "unloaded" }),
        State::Failed(reason) => json!({ "id": id, "state": "failed", "reason": reason }),
    }
}

fn card(model: &dyn Generate) -> Value {
    let card = model.card();
    let device = model.stats().device;
    json!({
        "id": card.id, "state": "ready", "created": card.created, "context": card.info.max_context, "vocab": card.info.vocab,
        "kv_cache_bytes": card.info.kv_bytes, "device": device.name, "backend": device.backend,
    })
}
