//! The engine's own measurements, for the benchmark programs beside the package.

use crate::convert::{to_json, to_python};
use crate::engine::options;
use crate::errors::{checked, raised};
use crate::wait::{Teller, on_thread};
use mlx_serving_bindings::bench::{Tell, compare, throughput};
use mlx_serving_bindings::{Code, Error};
use mlx_serving_runtime::Config;
use pyo3::prelude::*;
use serde_json::Value;

/// Speed of a model under a load: the object that `mlx-serving bench throughput` writes.
#[pyfunction]
pub(crate) fn bench_throughput<'py>(
    args: &Bound<'py, PyAny>,
    config: Option<&Bound<'py, PyAny>>,
    metal_opts: Option<&str>,
    progress: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = args.py();
    let mut config = read_config(py, config)?;
    if let Some(list) = metal_opts {
        let selected = config.metal_optimizations.select(list);
        checked(py, selected.map_err(|message| Error::value("metal_opts", message)))?;
    }
    measured(args, &config, progress, |args, tell| throughput(args, tell))
}

/// Optimizations between plain runs: `result` is the object that `mlx-serving bench compare` writes, `page` its HTML, `table` for a terminal,
/// `memory_pool` the pool's figures by themselves.
#[pyfunction]
pub(crate) fn bench_compare<'py>(
    args: &Bound<'py, PyAny>,
    config: Option<&Bound<'py, PyAny>>,
    progress: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let config = read_config(args.py(), config)?;
    measured(args, &config, progress, |args, tell| compare(args, tell))
}

fn read_config(py: Python<'_>, config: Option<&Bound<'_, PyAny>>) -> PyResult<Config> {
    mlx_serving_bindings::start_log();
    checked(py, Config::from_value(&options(config)?).map_err(Error::from))
}

/// Runs a measurement, and gives the lines that it tells to `progress`.
fn measured<'py>(
    args: &Bound<'py, PyAny>,
    config: &Config,
    progress: &Bound<'py, PyAny>,
    measure: impl FnOnce(&Value, Tell<'_>) -> Result<Value, Error> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>> {
    let py = args.py();
    let mut args = to_json("", args)?;
    args["config"] =
        serde_json::to_value(config).map_err(|error| raised(py, Error::new(Code::Internal, error.to_string())))?;
    let each = |line: String| progress.call1((line,)).map(drop);
    let work = move |teller: Teller<String, _>| measure(&args, &mut |line| teller.tell(line.to_owned()));
    to_python(py, &checked(py, on_thread(py, "measure", each, work, drop)?)?)
}
