//! The Metal layer's three optimizations by themselves, on any device: the classes of `krserve_native`.

pub(crate) mod blit;
pub(crate) mod configs;
pub(crate) mod pool;
pub(crate) mod ring;

use mlx_serving_bindings::panic_message;
use mlx_serving_device::{Device, DeviceError};
use mlx_serving_runtime::config::Engine;
use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Opens the device that a configuration names, for its holder alone.
fn open(py: Python<'_>, engine: &Engine) -> PyResult<Arc<dyn Device>> {
    mlx_serving_bindings::start_log();
    let opened = py.detach(|| mlx_serving_runtime::device::open(engine));
    opened.map_err(|error| PyRuntimeError::new_err(format!("device {}: {error}", engine.device)))
}

/// Runs what may block while other threads of the interpreter run. A panic is an exception too.
fn run<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, DeviceError> + Send) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(outcome) => outcome.map_err(raised),
        Err(panic) => Err(PyRuntimeError::new_err(panic_message(panic.as_ref()))),
    }
}

/// The exception for what a device reports.
fn raised(error: DeviceError) -> PyErr {
    let message = error.to_string();
    match error {
        DeviceError::OutOfMemory { .. } => PyMemoryError::new_err(message),
        DeviceError::Timeout { .. } => PyTimeoutError::new_err(message),
        DeviceError::Contract(reason) => PyValueError::new_err(reason),
        _ => PyRuntimeError::new_err(message),
    }
}
