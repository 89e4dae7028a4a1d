//! The engine's methods; only `engine.ts` calls them. Those that may take long return promises.

use crate::environment::{Environment, end};
use crate::failure::{failure, parse};
use crate::generation::Generation;
use crate::work::{Short, detached, long};
use mlx_serving_bindings as bindings;
use napi::bindgen_prelude::{AsyncTask, Env, FnArgs, Function, Object};
use napi::threadsafe_function::ThreadsafeFunctionCallMode::NonBlocking;
use napi_derive::napi;
use serde_json::{Value, json};
use std::sync::Arc;

/// Reports of progress that wait for a busy event loop; further ones are dropped. Not measured.
const PROGRESS: usize = 256;

/// Arguments of what is called at the end of a load: an error or an answer.
type Settled = FnArgs<(Option<String>, Option<String>)>;

/// An engine in this process.
#[napi]
pub struct Engine {
    inner: Arc<bindings::Engine>,
}

#[napi]
impl Engine {
    /// An engine with these options, which ends with the environment at the latest.
    #[napi(constructor, catch_unwind)]
    pub fn new(environment: &Environment, options: String) -> napi::Result<Self> {
        let inner = Arc::new(parse(&options).and_then(|options| bindings::Engine::new(&options)).map_err(failure)?);
        environment.own(&inner);
        Ok(Self { inner })
    }

    /// Loads a model; `progress` is called with JSON while that goes on, and `settle` at the end, with the error or the model's entry as
    /// JSON. Neither keeps the process, because a download may hang: a promise of Node-API would.
    #[napi]
    pub fn load_model(
        &self,
        args: String,
        progress: Option<Function<'_, String, ()>>,
        settle: Function<'_, Settled, ()>,
    ) -> napi::Result<()> {
        let progress = progress
            .map(|progress| {
                let progress = progress.build_threadsafe_function::<String>().weak::<true>();
                progress.max_queue_size::<PROGRESS>().build()
            })
            .transpose()?;
        let settle = settle.build_threadsafe_function::<Settled>().weak::<true>().build()?;
        let load = move |engine: &bindings::Engine| {
            let progress = progress.map(|progress| -> bindings::OnProgress<'_> {
                Box::new(move |step| {
                    let _ = progress.call(described(step).to_string(), NonBlocking);
                })
            });
            engine.load_model(&parse(&args)?, progress).map(|card| card.to_string())
        };
        detached(&self.inner, load, move |outcome| {
            let settled = match outcome {
                Ok(card) => (None, Some(card)),
                Err(error) => (Some(failure(error).reason.to_string()), None),
            };
            // An environment that has ended waits for nothing.
            let _ = settle.call(settled.into(), NonBlocking);
        })
    }

    /// Unloads a model.
    #[napi]
    pub fn unload_model<'env>(&self, env: &'env Env, args: String) -> napi::Result<Object<'env>> {
        long(env, &self.inner, move |engine| engine.unload_model(&parse(&args)?))
    }

    /// Refuses every later call, at once.
    #[napi]
    pub fn close(&self) {
        self.inner.close();
    }

    /// Checks the arguments of a generation.
    #[napi]
    pub fn check(&self, args: String) -> napi::Result<()> {
        self.call(|engine| engine.check(&parse(&args)?))
    }

    /// Ends everything.
    #[napi]
    pub fn dispose<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        long(env, &self.inner, |engine| {
            engine.dispose();
            Ok(())
        })
    }

    /// The loaded models, as JSON.
    #[napi]
    pub fn list_models(&self) -> napi::Result<String> {
        self.call(|engine| engine.list_models().map(|models| models.to_string()))
    }

    /// The engine's health, as JSON.
    #[napi]
    pub fn health(&self) -> napi::Result<String> {
        self.call(|engine| Ok(engine.health().to_string()))
    }

    /// Statistics of the Metal-layer optimizations, as JSON.
    #[napi]
    pub fn metal_stats(&self, args: String) -> napi::Result<String> {
        self.call(|engine| engine.metal_stats(&parse(&args)?).map(|stats| stats.to_string()))
    }

    /// Metrics as Prometheus reads them.
    #[napi]
    pub fn metrics(&self) -> napi::Result<String> {
        self.call(bindings::Engine::metrics)
    }

    /// Token ids of a text.
    #[napi]
    pub fn tokenize(&self, args: String) -> AsyncTask<Short<Vec<u32>>> {
        AsyncTask::new(Short::new(&self.inner, move |engine| engine.tokenize(&parse(&args)?)))
    }

    /// The text of token ids.
    #[napi]
    pub fn detokenize(&self, args: String) -> AsyncTask<Short<String>> {
        AsyncTask::new(Short::new(&self.inner, move |engine| engine.detokenize(&parse(&args)?)))
    }

    /// Starts a generation, whose tokens wake the environment.
    #[napi]
    pub fn start(&self, environment: &Environment, args: String) -> napi::Result<Generation> {
        let reader = bindings::Reader::Mailbox(environment.mailbox.clone());
        let inner = self.call(|engine| engine.start(&parse(&args)?, reader))?;
        Ok(Generation::new(self.inner.clone(), inner))
    }
}

impl Engine {
    fn call<T>(&self, work: impl FnOnce(&bindings::Engine) -> Result<T, bindings::Error>) -> napi::Result<T> {
        self.inner.guard(|| work(&self.inner)).map_err(failure)
    }
}

/// Progress of a load, as JSON.
fn described(step: bindings::Progress<'_>) -> Value {
    let (phase, file, done, total) = match step {
        bindings::Progress::Download { file, done, total } => ("download", Some(file), done, total),
        bindings::Progress::Load { done, total } => ("load", None, done, total),
    };
    json!({ "phase": phase, "file": file, "done": done, "total": total })
}

impl Drop for Engine {
    /// Ends an engine that nobody disposed of, once it is collected.
    fn drop(&mut self) {
        end(self.inner.clone(), || {});
    }
}
