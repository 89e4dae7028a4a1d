//! Work off the event loop's thread.

use crate::failure::{failure, internal};
use mlx_serving_bindings as bindings;
use napi::Task;
use napi::bindgen_prelude::{Env, Object, ToNapiValue};
use std::sync::Arc;
use std::thread;

/// Makes a value on the event loop's thread.
type Resolver<T> = Box<dyn FnOnce(Env) -> napi::Result<T> + Send>;

/// Work of an engine.
type Job<T> = Box<dyn FnOnce(&bindings::Engine) -> Result<T, bindings::Error> + Send>;

/// Runs an engine's work that may take minutes, as [`spawn`] does.
pub(crate) fn long<'env, T: ToNapiValue + Send + 'static>(
    env: &'env Env,
    engine: &Arc<bindings::Engine>,
    work: impl FnOnce(&bindings::Engine) -> Result<T, bindings::Error> + Send + 'static,
) -> napi::Result<Object<'env>> {
    let engine = engine.clone();
    spawn(env, move || engine.guard(|| work(&engine)))
}

/// Runs what may take minutes and does not panic on a thread of its own, and returns the promise of its answer. Node.js has four threads
/// for everybody's files and names, which are not to wait behind a model.
pub(crate) fn spawn<'env, T: ToNapiValue + Send + 'static>(
    env: &'env Env,
    work: impl FnOnce() -> Result<T, bindings::Error> + Send + 'static,
) -> napi::Result<Object<'env>> {
    let (deferred, promise) = env.create_deferred::<T, Resolver<T>>()?;
    let thread = thread::Builder::new().name("mlx-serving-work".into());
    let spawned = thread.spawn(move || match work() {
        Ok(value) => deferred.resolve(Box::new(move |_| Ok(value))),
        Err(error) => deferred.reject(failure(error)),
    });
    match spawned {
        Ok(_) => Ok(promise),
        Err(error) => Err(internal(format!("no thread can be started: {error}"))),
    }
}

/// Runs an engine's work on a thread of its own, and then `end` there.
pub(crate) fn detached<T>(
    engine: &Arc<bindings::Engine>,
    work: impl FnOnce(&bindings::Engine) -> Result<T, bindings::Error> + Send + 'static,
    end: impl FnOnce(Result<T, bindings::Error>) + Send + 'static,
) -> napi::Result<()> {
    let engine = engine.clone();
    let thread = thread::Builder::new().name("mlx-serving-work".into());
    let spawned = thread.spawn(move || end(engine.guard(|| work(&engine))));
    spawned.map(drop).map_err(|error| internal(format!("no thread can be started: {error}")))
}

/// Work of milliseconds, on a thread of Node.js's pool.
pub struct Short<T: Send + 'static> {
    engine: Arc<bindings::Engine>,
    work: Option<Job<T>>,
}

impl<T: Send + 'static> Short<T> {
    pub(crate) fn new(
        engine: &Arc<bindings::Engine>,
        work: impl FnOnce(&bindings::Engine) -> Result<T, bindings::Error> + Send + 'static,
    ) -> Self {
        Self { engine: engine.clone(), work: Some(Box::new(work)) }
    }
}

impl<T: ToNapiValue + napi::bindgen_prelude::TypeName + Send + 'static> Task for Short<T> {
    type Output = T;
    type JsValue = T;

    fn compute(&mut self) -> napi::Result<T> {
        let Self { engine, work } = self;
        let work = work.take().ok_or_else(|| internal("a task ran twice"))?;
        engine.guard(|| work(engine)).map_err(failure)
    }

    fn resolve(&mut self, _: Env, output: T) -> napi::Result<T> {
        Ok(output)
    }
}
