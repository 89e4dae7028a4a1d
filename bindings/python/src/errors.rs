//! Errors as exceptions: the classes are Python's own, in `mlx_serving.errors`.

use mlx_serving_bindings::Error;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The exception for an error.
pub(crate) fn raised(py: Python<'_>, error: Error) -> PyErr {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let Error { code, message, param, wrong_type } = error;
    let made = MAKE
        .import(py, "mlx_serving.errors", "_error")
        .and_then(|make| make.call1((code.to_string(), message, param, wrong_type)));
    made.map_or_else(|failed| failed, PyErr::from_value)
}

/// An outcome with its exception.
pub(crate) fn checked<T>(py: Python<'_>, outcome: Result<T, Error>) -> PyResult<T> {
    outcome.map_err(|error| raised(py, error))
}
