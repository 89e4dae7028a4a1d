//! The engine behind `mlx_serving.Engine`, which names and types its arguments.

use crate::convert::{to_json, to_python};
use crate::errors::{checked, raised};
use crate::generation::{Generation, WholeAnswer, drain};
use crate::local::Local;
use crate::mailbox::Mailbox;
use crate::wait::{Teller, on_thread};
use mlx_serving_bindings as bindings;
use mlx_serving_bindings::{Code, Error, OnProgress, Progress, Reader};
use mlx_serving_runtime::config::File;
use pyo3::prelude::*;
use pyo3::types::PyMapping;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

/// Models by name in this process.
#[pyclass(frozen, module = "krserve_native._native")]
pub(crate) struct Engine {
    engine: Arc<Local<bindings::Engine>>,
}

/// Progress of a load, as it is told to Python.
type Loading = (&'static str, String, u64, u64);

fn loading(progress: Progress<'_>) -> Loading {
    match progress {
        Progress::Download { file, done, total } => ("download", file.to_owned(), done, total),
        Progress::Load { done, total } => ("load", String::new(), done, total),
    }
}

impl Engine {
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&bindings::Engine) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let engine = self.engine.get_anywhere();
        let outcome = py.detach(|| engine.guard(|| work(engine)));
        checked(py, outcome)
    }

    /// Runs what may take long, so that a signal ends the wait for it.
    fn call_long<M: Send + 'static, T: Send + 'static>(
        &self,
        py: Python<'_>,
        name: &str,
        each: impl FnMut(M) -> PyResult<()>,
        work: impl FnOnce(&bindings::Engine, Teller<M, Result<T, Error>>) -> Result<T, Error> + Send + 'static,
        abandoned: impl FnOnce(&bindings::Engine, T) + Send + 'static,
    ) -> PyResult<T> {
        let engine = self.engine.get_anywhere().clone();
        let later = engine.clone();
        let work = move |teller| engine.guard(|| work(&engine, teller));
        let abandoned = move |outcome: Result<T, Error>| drop(outcome.map(|value| abandoned(&later, value)));
        checked(py, on_thread(py, name, each, work, abandoned)?)
    }
}

/// The options of an engine: a mapping, or the path of a file with them.
pub(crate) fn options(config: Option<&Bound<'_, PyAny>>) -> PyResult<Value> {
    let Some(config) = config.filter(|config| !config.is_none()) else { return Ok(Value::Null) };
    if config.cast::<PyMapping>().is_ok() {
        return to_json("", config);
    }
    let py = config.py();
    let path: PathBuf = config.extract().map_err(|_| {
        let kind = config.get_type().name().map_or_else(|_| "something else".to_owned(), |name| name.to_string());
        raised(py, Error::wrong_type("config", format!("`config` takes a mapping or the path of a file, not {kind}")))
    })?;
    let read =
        py.detach(|| File::read(&path)).map_err(|error| raised(py, Error::value("config", error.to_string())))?;
    // What the file does not set has the defaults, and the log's level counts only where it is set.
    let mut value =
        serde_json::to_value(&read.config).map_err(|e| raised(py, Error::new(Code::Internal, e.to_string())))?;
    if !read.keys.iter().any(|key| key == "telemetry.log_level") {
        value["telemetry"]["log_level"] = Value::Null;
    }
    Ok(value)
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (config=None))]
    fn new(py: Python<'_>, config: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let options = options(config)?;
        let made = py.detach(|| {
            let made = catch_unwind(AssertUnwindSafe(|| bindings::Engine::new(&options)));
            made.unwrap_or_else(|panic| Err(Error::new(Code::Internal, bindings::panic_message(panic.as_ref()))))
        });
        let engine = checked(py, made)?;
        Ok(Self { engine: Arc::new(Local::new(engine)) })
    }

    fn load_model<'py>(
        &self,
        py: Python<'py>,
        args: &Bound<'py, PyAny>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let args = to_json("", args)?;
        let each = |(stage, file, done, total): Loading| match progress {
            Some(progress) => progress.call1((stage, file, done, total)).map(drop),
            None => Ok(()),
        };
        let is_told = progress.is_some();
        let work = move |engine: &bindings::Engine, teller: Teller<Loading, _>| {
            let tell = move |progress: Progress<'_>| teller.tell(loading(progress));
            engine.load_model(&args, is_told.then(|| Box::new(tell) as OnProgress<'_>))
        };
        // Nobody asks for it any more.
        let unload =
            |engine: &bindings::Engine, card: Value| drop(engine.unload_model(&json!({ "model": card["id"] })));
        let card = self.call_long(py, "load", each, work, unload)?;
        to_python(py, &card)
    }

    fn unload_model(&self, py: Python<'_>, args: &Bound<'_, PyAny>) -> PyResult<()> {
        let args = to_json("", args)?;
        let work = move |engine: &bindings::Engine, _: Teller<(), _>| engine.unload_model(&args);
        self.call_long(py, "unload", |()| Ok(()), work, |_, ()| {})
    }

    fn list_models<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let models = self.call(py, bindings::Engine::list_models)?;
        to_python(py, &models)
    }

    fn health<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let health = self.call(py, |engine| Ok(engine.health()))?;
        to_python(py, &health)
    }

    fn metal_stats<'py>(&self, py: Python<'py>, args: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let args = to_json("", args)?;
        let stats = self.call(py, |engine| engine.metal_stats(&args))?;
        to_python(py, &stats)
    }

    fn metrics(&self, py: Python<'_>) -> PyResult<String> {
        self.call(py, bindings::Engine::metrics)
    }

    fn tokenize(&self, py: Python<'_>, args: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
        let args = to_json("", args)?;
        self.call(py, |engine| engine.tokenize(&args))
    }

    fn detokenize(&self, py: Python<'_>, args: &Bound<'_, PyAny>) -> PyResult<String> {
        let args = to_json("", args)?;
        self.call(py, |engine| engine.detokenize(&args))
    }

    fn start(&self, py: Python<'_>, args: &Bound<'_, PyAny>, mailbox: Option<&Mailbox>) -> PyResult<Generation> {
        let args = to_json("", args)?;
        let reader = mailbox.map_or(Ok(Reader::Blocking), |mailbox| mailbox.shared().map(Reader::Mailbox))?;
        let generation = self.call(py, |engine| engine.start(&args, reader))?;
        Ok(Generation::new(generation, self.engine.clone()))
    }

    fn generate<'py>(&self, py: Python<'py>, args: &Bound<'py, PyAny>) -> PyResult<WholeAnswer<'py>> {
        let args = to_json("", args)?;
        let generation = self.call(py, |engine| engine.start(&args, Reader::Blocking))?;
        drain(py, self.engine.get_anywhere(), generation)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let work = |engine: &bindings::Engine, _: Teller<(), _>| {
            engine.dispose();
            Ok(())
        };
        self.call_long(py, "close", |()| Ok(()), work, |_, ()| {})
    }

    /// Panics, for the test of what a panic leads to.
    #[cfg(debug_assertions)]
    fn _panic(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, |_| panic!("as a test asked for"))
    }
}
