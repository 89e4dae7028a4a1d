//! Ownership of values by the process that made them.

use pyo3::Python;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Owner of a value with threads behind it. After a fork these are gone: in the child it can neither be used nor dropped, so it is refused
/// and forgotten.
pub(crate) struct Local<T: Send> {
    /// There until it is dropped.
    value: Option<T>,
    process: u32,
}

impl<T: Send> Local<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Some(value), process: std::process::id() }
    }

    /// The value.
    ///
    /// # Errors
    /// This is a forked child.
    pub(crate) fn get(&self) -> PyResult<&T> {
        if self.is_here() {
            return Ok(self.get_anywhere());
        }
        Err(PyRuntimeError::new_err(format!(
            "this object was made in process {} and its threads are not in this forked one: make it after the fork, or start \
             workers with the method \"spawn\"",
            self.process
        )))
    }

    /// The value in any process, for calls that refuse a forked child themselves.
    pub(crate) fn get_anywhere(&self) -> &T {
        self.value.as_ref().expect("only `drop` takes the value")
    }

    fn is_here(&self) -> bool {
        self.process == std::process::id()
    }
}

impl<T: Send> Drop for Local<T> {
    fn drop(&mut self) {
        let mut value = self.value.take();
        if !self.is_here() {
            std::mem::forget(value);
            return;
        }
        // Its end may wait for threads, and Python runs meanwhile. Once the interpreter ends there is nobody to let run.
        Python::try_attach(|py| {
            let value = value.take();
            py.detach(move || drop(value));
        });
    }
}
